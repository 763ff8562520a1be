"""Parquet and Arrow: cells that Python cannot hold, files that claim too much, folders that `datasets` saved."""

import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longlode.corpus import Document, find_files, plan, read, read_unit, write_documents

TEXTS = [f"text {n}" for n in range(6)]
NANOSECONDS = 1_700_000_000_000_000_001
DAY = 86_400_000  # milliseconds
BEYOND = 4_629_630  # days: the year 14645
ODD = {
    "ns": (
        pa.array([None, 2_000, NANOSECONDS, 4_000, 5_000, 6_000], pa.timestamp("ns")),
        "2023-11-14 22:13:20",
    ),
    "zone": (pa.array([0, 1, NANOSECONDS, 3, 4, 5], pa.timestamp("ns", "UTC")), "2023-11-14 22:13:20"),
    "date": (pa.array([0, DAY, BEYOND * DAY, 0, 0, 0], pa.int64()).cast(pa.date64()), "14645-"),
    "duration": (pa.array([0, 1, 7, 3, 4, 5], pa.duration("ns")), "7 ns"),
    "time": (pa.array([0, 1, 1_001, 3, 4, 5], pa.time64("ns")), "00:00:00.000001001"),
}


def both_ways(path, **options):
    rows = list(read(path))
    assert [row for unit in plan(path, **options) for row in read_unit(unit)] == rows
    return rows


def write_table(kind: str, path: Path, table: pa.Table, batch_rows: int = 2) -> Path:
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=batch_rows)
    else:
        make = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
        with make(path, table.schema) as sink:
            sink.write_table(table, max_chunksize=batch_rows)
    return path


@pytest.mark.parametrize("kind", ["parquet", "stream"])
@pytest.mark.parametrize("name", ODD)
def test_a_cell_that_python_cannot_hold_becomes_text_and_takes_nothing_along(tmp_path, kind, name):
    column, expected = ODD[name]
    table = pa.table({"text": TEXTS, "odd": column, "nested": pa.StructArray.from_arrays([column], ["in"])})
    path = write_table(kind, tmp_path / f"x.{'parquet' if kind == 'parquet' else 'arrow'}", table)
    rows = both_ways(path, rows_per_unit=3)
    assert [row.text for row in rows] == TEXTS
    odd = rows[2].metadata["odd"]
    assert odd.startswith(expected)
    if name != "duration":  # a duration inside a struct may fit
        assert rows[2].metadata["nested"] == {"in": odd}
    assert write_documents(tmp_path / "out.jsonl", (row.metadata for row in rows)) == 6


@pytest.mark.parametrize("kind", ["parquet", "stream"])
def test_columns_that_nobody_asks_for_are_not_read(tmp_path, kind):
    table = pa.table({"big": ["x" * 5000] * 6, "id": list("abcdef"), "body": TEXTS, "source": ["s"] * 6})
    path = write_table(kind, tmp_path / "t.parquet" if kind == "parquet" else tmp_path / "t.arrow", table, 6)
    (unit,) = plan(path)
    whole = list(read_unit(unit, text_field="body"))
    bare = list(read_unit(unit, text_field="body", with_metadata=False))
    assert [row.metadata for row in bare] == [{}] * 6
    assert bare == [replace(row, metadata={}) for row in whole]
    (reason,) = {row.reason for row in read_unit(unit, with_metadata=False)}
    assert "'big', 'id', 'body', 'source'" in reason, "a column that is missing is looked for among all"
    if kind == "parquet":
        data = bytearray(path.read_bytes())
        begin = pq.read_metadata(path).row_group(0).column(0).dictionary_page_offset
        data[begin : begin + 20] = b"\xff" * 20
        path.write_bytes(data)
        (unit,) = plan(path)
        assert {row.status for row in read_unit(unit, text_field="body")} == {"failed"}
        assert list(read_unit(unit, text_field="body", with_metadata=False)) == bare


def test_times_that_python_can_hold_stay_times(tmp_path):
    table = pa.table({"text": ["a"], "t": pa.array([1_700_000_000_000_000], pa.timestamp("us"))})
    (row,) = read(write_table("parquet", tmp_path / "x.parquet", table))
    assert row.metadata["t"] == datetime(2023, 11, 14, 22, 13, 20)


def claim_rows(path: Path, true_rows: int, claimed: int) -> None:
    """Patch every count of rows in a Parquet footer: thrift's zigzag varints."""

    def varint(value: int) -> bytes:
        value, out = value << 1, b""
        while True:
            value, low = value >> 7, value & 0x7F
            out += bytes([low | (0x80 if value else 0)])
            if not value:
                return out

    data = path.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    footer = data[start:-8].replace(varint(true_rows), varint(claimed))
    assert footer != data[start:-8]
    path.write_bytes(data[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def test_a_file_that_claims_more_rows_than_it_can_hold_is_one_failed_row(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["same"] * 12_345}), path)
    claim_rows(path, 12_345, 1 << 40)
    assert path.stat().st_size < 2_000
    started = time.monotonic()
    (row,) = both_ways(path)
    assert time.monotonic() - started < 5
    assert row.status == "failed"
    assert "claims 1,099,511,627,776 rows in" in row.reason


def test_rows_that_a_group_claims_and_does_not_have_are_failed_rows(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["same"] * 12_345}), path)
    claim_rows(path, 12_345, 12_400)
    rows = both_ways(path)
    assert len(rows) == 12_400
    assert sum(isinstance(row, Document) for row in rows) <= 12_345
    assert all(row.status == "failed" and "row group 0" in row.reason for row in rows[12_345:])


def test_few_bytes_for_many_equal_rows_are_believed(tmp_path):
    pq.write_table(pa.table({"text": ["same"] * 100_000}), tmp_path / "x.parquet")
    assert sum(unit.stop - unit.start for unit in plan(tmp_path / "x.parquet")) == 100_000


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_arrow_files(tmp_path, kind):
    table = pa.table({"text": [*TEXTS[:4], None, ""], "id": list("abcdef"), "n": range(6)})
    path = write_table(kind, tmp_path / "x.arrow", table, batch_rows=4)
    rows = both_ways(path, rows_per_unit=2)
    assert [row.id for row in rows] == list("abcdef")
    assert rows[3] == Document("d", "text 3", "x", "x.arrow", 3, {"n": 3})
    assert [getattr(row, "status", "ok") for row in rows] == ["ok"] * 4 + ["failed", "too_short"]
    assert [(unit.start, unit.stop) for unit in plan(path, rows_per_unit=4)] == [(0, 4), (4, 6)]


@pytest.mark.parametrize("kind", ["stream", "file", "parquet"])
def test_a_column_whose_name_is_no_utf8_makes_one_failed_row(tmp_path, kind):
    path = write_table(
        kind,
        tmp_path / ("x.parquet" if kind == "parquet" else "x.arrow"),
        pa.table({"text": TEXTS, "name": TEXTS}),
    )
    path.write_bytes(path.read_bytes().replace(b"name", b"n\xe4me"))
    rows = both_ways(path)
    assert [row.status for row in rows] == ["failed"]
    assert "is not UTF-8 at byte 1" in rows[0].reason


def test_a_value_that_arrow_does_not_allow_stays_with_its_row(tmp_path):
    dates = pa.array([0, 1, 2, 3, 4, 5], pa.int64()).view(pa.date64())  # not whole days
    texts = pa.array([*map(str.encode, TEXTS[:5]), b"\xff"], pa.binary()).view(pa.string())
    path = write_table("stream", tmp_path / "x.arrow", pa.table({"text": texts, "date": dates}), batch_rows=6)
    rows = both_ways(path)
    assert [getattr(row, "text", "") for row in rows] == [*TEXTS[:5], ""]
    assert rows[5].reason == "field 'text' is not UTF-8 at byte 0"


def test_offsets_that_lead_out_of_the_file_are_not_followed(tmp_path):
    path = write_table("stream", tmp_path / "x.arrow", pa.table({"text": TEXTS}), batch_rows=6)
    offsets = b"".join((6 * n).to_bytes(4, "little") for n in range(7))
    data = path.read_bytes()
    assert data.count(offsets) == 1
    path.write_bytes(data.replace(offsets, offsets[:-8] + (1 << 30).to_bytes(4, "little") + offsets[-4:]))
    rows = both_ways(path)
    assert [getattr(row, "text", "") for row in rows] == [*TEXTS[:4], "", ""]
    assert all("damaged" in row.reason for row in rows[4:])


def test_offsets_of_a_dictionary_that_lead_out_of_the_file_are_not_followed(tmp_path):
    kinds = pa.array(["aaaa", "bbbb"] * 3).dictionary_encode()
    path = write_table("stream", tmp_path / "x.arrow", pa.table({"text": TEXTS, "kind": kinds}), batch_rows=6)
    offsets = b"".join((4 * n).to_bytes(4, "little") for n in range(3))
    data = path.read_bytes()
    assert data.count(offsets) == 1
    path.write_bytes(data.replace(offsets, offsets[:4] + (1 << 30).to_bytes(4, "little") * 2))
    program = "import sys; from longlode.corpus import plan, read; path = sys.argv[1]; "
    program += "print(len(plan(path)), *(row.status for row in read(path)))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["1", *["failed"] * 6], (done.returncode, done.stderr)


def test_an_arrow_file_that_goes_bad_keeps_what_came_before(tmp_path):
    path = write_table("stream", tmp_path / "x.arrow", pa.table({"text": TEXTS}))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * 0.7)])
    rows = both_ways(path, rows_per_unit=2)
    assert 0 < len(rows) < 6
    assert [row.text for row in rows[:-1]] == TEXTS[: len(rows) - 1]
    assert "damaged Arrow data" in rows[-1].reason
    path.write_bytes(whole[:7])
    (row,) = both_ways(path)
    assert row.reason.startswith("not an Arrow file")
    path.write_bytes(b"")
    (row,) = both_ways(path)
    assert row.status == "failed"


def save_to_disk(folder: Path, shards: int = 2) -> list[str]:
    """What `datasets.Dataset.save_to_disk` writes, with a cache that `map` left."""
    folder.mkdir(parents=True)
    names = [f"data-{n:05d}-of-{shards:05d}.arrow" for n in range(shards)]
    for n, name in enumerate(names):
        write_table("stream", folder / name, pa.table({"text": [f"shard {n} row {row}" for row in range(3)]}))
    write_table("stream", folder / "cache-0123456789abcdef.arrow", pa.table({"text": ["a copy"] * 3}))
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train", "_fingerprint": "0"}
    (folder / "state.json").write_bytes(orjson.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return names


def test_a_folder_that_datasets_saved(tmp_path):
    names = save_to_disk(tmp_path / "stories")
    rows = [row for row in both_ways(tmp_path / "stories") if isinstance(row, Document)]
    assert [row.text for row in rows] == [f"shard {n} row {row}" for n in range(2) for row in range(3)]
    assert {row.source for row in rows} == {"stories"}
    assert rows[0].id == f"{names[0]}#0"
    left_out = {file.name: file.reason for file in find_files(tmp_path / "stories") if file.status}
    assert left_out == {
        "cache-0123456789abcdef.arrow": "a cache of the saved dataset, which state.json does not list",
        "dataset_info.json": "it describes a saved dataset and holds no record",
        "state.json": "it describes a saved dataset and holds no record",
    }


def test_a_folder_of_splits_that_datasets_saved(tmp_path):
    for split in ("train", "test"):
        save_to_disk(tmp_path / "all" / split, shards=1)
    (tmp_path / "all" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    rows = [row for row in both_ways(tmp_path / "all") if isinstance(row, Document)]
    assert [row.source for row in rows] == ["test"] * 3 + ["train"] * 3
