"""Every kind of bad input: each row has its result, and no good row is lost."""

import gzip
import json
import tracemalloc
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from fsspec.implementations.memory import MemoryFileSystem

from longlode.core.errors import BackendError, ConfigError, InputError
from longlode.corpus import Document, Unreadable, plan, read, read_unit
from longlode.corpus import streams as corpus_streams

GOOD = b'{"text": "one"}\n{"text": "two"}\n'


def both_ways(path, **options):
    """Rows of `path`, read whole and by units of one row; both must agree."""
    whole = list(read(path, **options))
    by_units = [row for unit in plan(path, rows_per_unit=1) for row in read_unit(unit, **options)]
    assert by_units == whole
    return whole


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def texts(rows):
    return [row.text for row in rows if isinstance(row, Document)]


def faults(rows):
    return [(row.row, row.status, row.reason) for row in rows if isinstance(row, Unreadable)]


def test_records_become_documents(tmp_path):
    record = {"id": 7, "text": "some text", "source": "web", "kind": "x", "n": [1, {"a": None}]}
    path = write(
        tmp_path / "a.jsonl", json.dumps(record).encode() + b'\n{"id": true, "text": "b", "source": 3}'
    )
    assert both_ways(path) == [
        Document("7", "some text", "web", "a.jsonl", 0, {"kind": "x", "n": [1, {"a": None}]}),
        Document("a.jsonl#1", "b", "a", "a.jsonl", 1, {"id": True, "source": 3}),
    ]


def test_another_text_field(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"body": "b", "text": "t"}')
    assert both_ways(path, text_field="body") == [
        Document("a.jsonl#0", "b", "a", "a.jsonl", 0, {"text": "t"})
    ]


def test_whole_files_in_a_folder(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write(tmp_path / "in" / "top.md", b"# top\r\n")
    write(tmp_path / "in" / "deep" / "code.py", b"\tx = 1\n")
    assert both_ways(tmp_path / "in") == [
        Document("deep/code.py", "\tx = 1\n", "deep", "deep/code.py", 0),
        Document("top.md", "# top\r\n", "in", "top.md", 0),
    ]


def test_missing_folder_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        read(tmp_path / "nowhere")
    with pytest.raises(InputError, match="nowhere"):
        plan([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("e.txt", "too_short", "the file is empty"),
        ("e.jsonl", "skipped", "the file holds no records"),
        ("e.jsonl.gz", "skipped", "the file holds no records"),
        ("e.parquet", "failed", "not a Parquet file"),
    ],
)
def test_empty_file(tmp_path, name, status, reason):
    (row,) = both_ways(write(tmp_path / name, b""))
    assert (row.id, row.row, row.status) == (name, 0, status)
    assert reason in row.reason


def test_blank_lines_give_no_rows_but_keep_line_numbers(tmp_path):
    rows = both_ways(write(tmp_path / "a.jsonl", b'\n  \r\n{"text": "x"}\r\n\n{"text": "y"}\n\n'))
    assert [(row.row, row.text) for row in rows] == [(2, "x"), (4, "y")]
    (row,) = both_ways(write(tmp_path / "b.jsonl", b"\n \n\t\n"))
    assert (row.status, row.reason) == ("skipped", "the file holds no records")


def test_bad_utf8_line(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD + b'{"text": "caf\xe9"}\n' + GOOD)
    assert texts(both_ways(path)) == ["one", "two", "one", "two"]
    assert faults(both_ways(path)) == [(2, "failed", "not UTF-8 at byte 13")]
    assert texts(both_ways(path, errors="replace"))[2] == "caf\ufffd"
    with pytest.raises(ConfigError, match="expected 'strict' or 'replace'"):
        read(path, errors="ignore")


def test_bad_utf8_text(tmp_path):
    path = write(tmp_path / "a.txt", b"caf\xe9")
    assert faults(both_ways(path)) == [(0, "failed", "not UTF-8 at byte 3")]
    assert texts(both_ways(path, errors="replace")) == ["caf\ufffd"]


def test_broken_json_among_good_lines(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        GOOD + b'{"text": "torn\n[1, 2]\n"word"\n\x00\x00\x00\n' + b"[" * 5000 + b"\n" + GOOD,
    )
    rows = both_ways(path)
    assert texts(rows) == ["one", "two", "one", "two"]
    reasons = {row: reason for row, status, reason in faults(rows) if status == "failed"}
    assert sorted(reasons) == [2, 3, 4, 5, 6]
    assert all(reasons[row].startswith("not valid JSON") for row in (2, 5, 6))
    assert reasons[3] == "the record is a list, expected an object with fields"
    assert "a string, expected an object" in reasons[4]


def test_missing_and_wrong_text_field(tmp_path):
    lines = [{"body": "x", "id": "a"}, {"text": None}, {"text": 3}, {"text": ["x"]}, {"text": ""}, {}]
    rows = both_ways(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)).encode()))
    assert rows[0].id == "a"
    assert [reason for _, _, reason in faults(rows)] == [
        "no field 'text'; the record has: 'body', 'id'",
        "field 'text' is null, expected a string",
        "field 'text' is a number, expected a string",
        "field 'text' is a list, expected a string",
        "the text is empty",
        "no field 'text'; the record has: none",
    ]
    assert [row.status for row in rows] == ["failed"] * 4 + ["too_short", "failed"]


def test_a_long_line_is_dropped_and_the_next_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as stream:
        stream.write(GOOD + b'{"text": "')
        for _ in range(200):
            stream.write(b"x" * 1_000_000)
        stream.write(b'"}\n' + GOOD)
    tracemalloc.start()
    rows = list(read(path, max_line_bytes=8 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts(rows) == ["one", "two", "one", "two"]
    assert faults(rows) == [(2, "failed", "line longer than 8,388,608 bytes (max_line_bytes): 200,000,012")]
    assert peak < 32 << 20, f"200 MB line held: peak {peak:,}"
    assert faults(read(path)) == [
        (2, "failed", "line longer than 67,108,864 bytes (max_line_bytes): 200,000,012")
    ]
    path.unlink()


def test_a_line_at_the_limit_is_read(tmp_path):
    line = b'{"text": "abc"}'
    path = write(tmp_path / "a.jsonl", line + b"\n" + line)
    assert texts(both_ways(path, max_line_bytes=len(line))) == ["abc", "abc"]
    assert len(faults(both_ways(path, max_line_bytes=len(line) - 1))) == 2


def test_marks_and_nul(tmp_path):
    assert texts(both_ways(write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + GOOD))) == ["one", "two"]
    assert texts(both_ways(write(tmp_path / "a.txt", b"\xef\xbb\xbfword"))) == ["word"]
    assert faults(both_ways(write(tmp_path / "b.txt", b"ab\0cd"))) == [
        (0, "skipped", "binary, not text: NUL at byte 2")
    ]
    utf16 = write(tmp_path / "c.txt", "text".encode("utf-16"))
    assert faults(both_ways(utf16)) == [(0, "failed", "UTF-16 by its byte order mark, expected UTF-8")]
    assert texts(both_ways(write(tmp_path / "d.jsonl", b'{"text": "a\\u0000b"}'))) == ["a\0b"]


def test_lone_surrogates_and_nan(tmp_path):
    lines = rb"""{"text": "a\ud800b"}
{"text": "c", "note": "\udfff", "big": 123456789012345678901234567890, "x": NaN}
{"text": "\ud83d\ude00"}"""
    path = write(tmp_path / "a.jsonl", lines)
    rows = both_ways_ignoring_nan(path)
    assert texts(rows) == ["c", "\U0001f600"]
    assert faults(rows) == [(0, "failed", "lone surrogate U+D800 at character 1 of the text")]
    assert rows[1].metadata["note"] == "\ufffd"
    assert texts(both_ways_ignoring_nan(path, errors="replace")) == ["a\ufffdb", "c", "\U0001f600"]


@pytest.mark.parametrize("num_digits", [19, 30, 308, 309, 310, 311, 5000])
def test_a_number_of_any_length_takes_no_document_along(tmp_path, num_digits):
    path = write(tmp_path / "a.jsonl", b'{"text": "fine", "n": -' + b"9" * num_digits + b"}")
    [row] = both_ways(path)
    assert row.text == "fine"
    assert row.metadata["n"] == -float("9" * num_digits) or row.metadata["n"] == "-" + "9" * num_digits


def both_ways_ignoring_nan(path, **options):
    whole = list(read(path, **options))
    for row in whole:
        if isinstance(row, Document) and "x" in row.metadata:
            assert row.metadata.pop("x") != 0
    return whole


def test_too_large_text(tmp_path):
    path = write(tmp_path / "a.txt", b"x" * 101)
    assert faults(both_ways(path, max_text_bytes=100)) == [
        (0, "failed", "larger than 100 bytes (max_text_bytes)")
    ]
    packed = write(tmp_path / "b.txt.gz", gzip.compress(b"x" * 101))
    assert len(faults(both_ways(packed, max_text_bytes=100))) == 1
    assert texts(both_ways(packed)) == ["x" * 101]


def compress(data: bytes, suffix: str) -> bytes:
    return gzip.compress(data, mtime=0) if suffix == ".gz" else zstandard.compress(data)


MANY = b"".join(b'{"text": "%d %s"}\n' % (i, bytes(str(hash((i, 1))), "ascii") * 3) for i in range(20_000))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated_archive_keeps_the_good_rows(tmp_path, suffix):
    data = compress(MANY, suffix)
    path = write(tmp_path / f"a.jsonl{suffix}", data[: len(data) // 2])
    rows = list(read(path))
    good = texts(rows)
    assert 5_000 < len(good) < 15_000
    assert good == [json.loads(line)["text"] for line in MANY.splitlines()[: len(good)]]
    ((row, status, reason),) = faults(rows)
    assert (row, status) == (len(good), "failed")
    assert "cut short" in reason
    units = plan(path, rows_per_unit=1000)
    assert [row for unit in units for row in read_unit(unit)] == rows


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_corrupt_archive_keeps_what_came_before(tmp_path, suffix):
    first, second = compress(GOOD, suffix), bytearray(compress(MANY, suffix))
    second[0] ^= 0xFF
    rows = both_ways(write(tmp_path / f"a.jsonl{suffix}", first + bytes(second)))
    assert texts(rows) == ["one", "two"]
    assert [(row, status) for row, status, _ in faults(rows)] == [(2, "failed")]
    (row,) = both_ways(write(tmp_path / f"b.jsonl{suffix}", b"this was never an archive"))
    assert row.status == "failed"
    assert "broken" in row.reason


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_several_members_are_one_file(tmp_path, suffix):
    data = compress(GOOD, suffix) + compress(b'{"text": "thr', suffix) + compress(b'ee"}\n', suffix)
    if suffix == ".gz":
        data += b"\0" * 512  # padding of tape archives
    assert texts(both_ways(write(tmp_path / f"a.jsonl{suffix}", data))) == ["one", "two", "three"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_bomb(tmp_path, suffix):
    with (tmp_path / "bomb").open("wb") as raw:
        opened = (
            gzip.GzipFile("", "wb", 9, raw)
            if suffix == ".gz"
            else zstandard.ZstdCompressor().stream_writer(raw)
        )
        with opened as stream:
            stream.write(GOOD)
            for _ in range(200):
                stream.write(b"\n" * (1 << 20))
    path = (tmp_path / "bomb").rename(tmp_path / f"a.jsonl{suffix}")
    assert path.stat().st_size < 1 << 20
    rows = list(read(path))
    assert texts(rows) == ["one", "two"]
    ((row, status, reason),) = faults(rows)
    assert status == "failed"
    assert "bomb" in reason
    assert row < 2 * corpus_streams.RATIO_FLOOR_BYTES
    text = path.rename(tmp_path / f"a.txt{suffix}")
    assert "bomb" in faults(read(text))[0][2]


def test_not_parquet(tmp_path):
    (row,) = both_ways(write(tmp_path / "a.parquet", b"PAR1 but no more" * 10))
    assert (row.status, row.row) == ("failed", 0)
    assert "not a Parquet file" in row.reason


def test_parquet_rows(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["a", None, "", "d"], "id": ["x", "y", "z", None], "n": [1, 2, 3, 4]})
    pq.write_table(table, path, row_group_size=3)
    rows = both_ways(path)
    assert rows[0] == Document("x", "a", "a", "a.parquet", 0, {"n": 1})
    assert rows[3] == Document("a.parquet#3", "d", "a", "a.parquet", 3, {"id": None, "n": 4})
    assert [(row.id, row.status) for row in rows[1:3]] == [("y", "failed"), ("z", "too_short")]


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "binary", "dictionary"])
def test_parquet_text_types_and_bad_utf8(tmp_path, kind):
    strings = pa.array([b"good", b"caf\xe9", "\u00e9".encode()], pa.binary())
    if kind == "dictionary":
        column = pa.array(["good", "good", "\u00e9"]).dictionary_encode()
    elif kind == "binary":
        column = strings
    else:
        column = pa.Array.from_buffers(pa.string(), 3, strings.buffers())
        column = column if kind == "string" else column.cast(getattr(pa, kind)(), safe=False)
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    rows = both_ways(tmp_path / "a.parquet")
    if kind == "dictionary":
        assert texts(rows) == ["good", "good", "\u00e9"]
    else:
        assert texts(rows) == ["good", "\u00e9"]
        assert faults(rows) == [(1, "failed", "field 'text' is not UTF-8 at byte 3")]
        assert texts(both_ways(tmp_path / "a.parquet", errors="replace"))[1] == "caf\ufffd"


def test_parquet_without_the_column_and_with_a_wrong_one(tmp_path):
    pq.write_table(pa.table({"body": ["a", "b"], "text_": [1, 2]}), tmp_path / "a.parquet")
    assert faults(both_ways(tmp_path / "a.parquet")) == [
        (row, "failed", "no field 'text'; the record has: 'body', 'text_'") for row in (0, 1)
    ]
    assert faults(both_ways(tmp_path / "a.parquet", text_field="text_"))[1][2].startswith(
        "field 'text_' is a number"
    )


def test_parquet_without_rows(tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert faults(both_ways(tmp_path / "a.parquet")) == [(0, "skipped", "the file holds no rows")]


def test_a_damaged_row_group_costs_only_its_rows(tmp_path):
    path = tmp_path / "a.parquet"
    words = [f"{i} {i * i}" * 5 for i in range(300)]
    pq.write_table(
        pa.table({"text": words}), path, row_group_size=100, compression="zstd", use_dictionary=False
    )
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset + 40
    data[start : start + 60] = b"\xff" * 60
    path.write_bytes(bytes(data))
    rows = both_ways(path)
    assert texts(rows) == words[:100] + words[200:]
    assert [row for row, _, _ in faults(rows)] == list(range(100, 200))
    assert "damaged row group 1" in rows[100].reason


def test_unknown_suffix_is_tried_as_text_when_named(tmp_path):
    assert texts(both_ways(write(tmp_path / "notes.xyz", b"plain words"))) == ["plain words"]
    (row,) = both_ways(write(tmp_path / "photo.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"))
    assert row.status == "skipped"
    assert "binary" in row.reason


def test_json_is_not_json_lines(tmp_path):
    (row,) = list(read(write(tmp_path / "a.json", b'[{"text": "x"}]')))
    assert row.status == "skipped"
    assert "write its records as .jsonl" in row.reason
    assert texts(read(write(tmp_path / "a.json.gz", gzip.compress(GOOD)))) == ["one", "two"]
    assert texts(read(tmp_path / "*.json.gz")) == ["one", "two"]


class DeniedFileSystem(MemoryFileSystem):
    """A store whose files exist and may not be opened."""

    protocol = "denied"
    store = {"/a.jsonl": None, "/b.txt": None}  # noqa: RUF012 - as fsspec's own
    pseudo_dirs = [""]  # noqa: RUF012

    def info(self, path, **kwargs):
        return {"name": path, "size": 5, "type": "file"}

    def _open(self, path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", path)


def test_forbidden_files_are_rows(tmp_path):
    fsspec.register_implementation("denied", DeniedFileSystem, clobber=True)
    good = write(tmp_path / "good.jsonl", GOOD)
    inputs = ["denied://a.jsonl", "denied://b.txt", good]
    for rows in (list(read(inputs)), [row for unit in plan(inputs) for row in read_unit(unit)]):
        assert texts(rows) == ["one", "two"]
        assert [(row.id, row.status, row.reason) for row in rows[:2]] == [
            ("a.jsonl", "failed", "cannot be read: permission denied"),
            ("b.txt", "failed", "cannot be read: permission denied"),
        ]


def test_a_file_that_went_or_changed_after_planning(tmp_path):
    gone, changed, kept = (write(tmp_path / name, GOOD) for name in ("a.jsonl", "b.jsonl", "c.jsonl"))
    units = plan([gone, changed, kept])
    gone.unlink()
    changed.write_bytes(GOOD.replace(b"o", b"u"))
    rows = [row for unit in units for row in read_unit(unit)]
    assert texts(rows) == ["une", "twu", "one", "two"]  # the rows read before the change was noticed
    bad = [row for row in rows if not isinstance(row, Document)]
    assert [(row.file, row.status, row.transient) for row in bad] == [
        ("a.jsonl", "failed", True),
        ("b.jsonl", "failed", True),
    ]
    assert "has gone" in bad[0].reason
    assert "has changed" in bad[1].reason


@pytest.fixture
def memory():
    store = fsspec.filesystem("memory")
    yield store
    store.rm("/", recursive=True)


def test_remote_files_folders_and_globs(memory, tmp_path):
    memory.pipe(
        {"/c/a.jsonl": GOOD, "/c/d/b.jsonl.gz": gzip.compress(GOOD), "/c/t.md": b"# t", "/c/.x": b"h"}
    )
    pq.write_table(pa.table({"text": ["p"]}), tmp_path / "p.parquet")
    memory.pipe("/c/d/p.parquet", (tmp_path / "p.parquet").read_bytes())
    rows = both_ways("memory://c")
    assert [(row.id, getattr(row, "text", None)) for row in rows] == [
        (".x", None),
        ("a.jsonl#0", "one"),
        ("a.jsonl#1", "two"),
        ("d/b.jsonl.gz#0", "one"),
        ("d/b.jsonl.gz#1", "two"),
        ("d/p.parquet#0", "p"),
        ("t.md", "# t"),
    ]
    assert [row.id for row in both_ways("memory://c/**/*.gz")] == ["d/b.jsonl.gz#0", "d/b.jsonl.gz#1"]
    assert texts(both_ways("memory://c/t.md")) == ["# t"]
    with pytest.raises(InputError, match="does not exist"):
        read("memory://c/none.jsonl")


def test_file_urls_are_local_paths(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD)
    assert both_ways(f"file://{path}") == both_ways(path)
    assert plan(f"file://{path}")[0].fingerprint == plan(path)[0].fingerprint


def test_stores_that_cannot_be_reached(monkeypatch):
    with pytest.raises(InputError, match="no store that fsspec knows"):
        read("nosuch://bucket/a.jsonl")
    with pytest.raises(InputError, match="chains several stores"):
        read("zip://a.jsonl::memory://b.zip")
    fsspec.register_implementation(
        "absent", "no_such_package.Store", clobber=True, errtxt="install no_such_package"
    )
    with pytest.raises(BackendError, match="no_such_package"):
        read("absent://bucket/a.jsonl")
