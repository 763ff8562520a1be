"""What is written reads back, whole or not at all."""

import datetime
import errno
from decimal import Decimal

import pyarrow.parquet as pq
import pytest

from longlode.core.errors import InputError
from longlode.corpus import Document, id_hash, in_heldout, read, write, write_documents

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
ROWS = [
    {
        "id": "a",
        "text": 'line\nline\u2028 \U0001f600 "quoted" \0 nul',
        "source": "web",
        "tags": ["x"],
        "meta": {"n": 1},
    },
    {"id": "b", "text": "\ttab", "source": "web", "extra": 2.5},
    *({"id": str(number), "text": f"text {number}", "source": "many"} for number in range(3000)),
    {"id": "late", "text": "late", "source": "web", "only_here": True},
]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path, suffix):
    path = tmp_path / "deep" / f"out{suffix}"
    assert write_documents(path, iter(ROWS)) == len(ROWS)
    rows = list(read(path))
    assert [(row.id, row.text, row.source) for row in rows] == [
        (row["id"], row["text"], row["source"]) for row in ROWS
    ]
    for got, given in zip(rows, ROWS, strict=True):
        rest = {key: value for key, value in given.items() if key not in ("id", "text", "source")}
        assert {key: value for key, value in got.metadata.items() if value is not None} == rest
    assert [path.name for path in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_rows_give_the_same_bytes(tmp_path, suffix):
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        write_documents(path, ROWS)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failure_leaves_what_was_there(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write_documents(path, ROWS[:1])
    before = path.read_bytes()

    def failing():
        yield from ROWS
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        write_documents(path, failing())
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_rows(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    assert write_documents(path, []) == 0
    (row,) = read(path)
    assert row.status == "skipped"


def test_values_that_json_lacks(tmp_path):
    row = {
        "text": "x",
        "day": datetime.date(2026, 1, 2),
        "price": Decimal("1.10"),
        "raw": b"\xff",
        "n": float("nan"),
    }
    write_documents(tmp_path / "a.jsonl", [row])
    (back,) = read(tmp_path / "a.jsonl")
    assert isinstance(back, Document)
    assert back.metadata == {"day": "2026-01-02", "price": "1.10", "raw": "/w==", "n": None}
    with pytest.raises(InputError, match=r"cannot be written as JSON: .*Type"):
        write_documents(tmp_path / "b.jsonl", [{"text": "x", "odd": object()}])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_row_that_cannot_be_written_is_refused_alone(tmp_path, suffix):
    deep = 1
    for _ in range(300):
        deep = {"a": deep}
    rows = [{"id": "a", "text": "x"}, {"id": "b", "text": "x", "deep": deep}, {"id": "c", "text": "y"}]
    odd = {"id": "d", "text": "x", "odd": object()}
    path, refused = tmp_path / f"out{suffix}", []
    given = rows if suffix == ".parquet" else [*rows, odd]
    written = write_documents(path, given, refused=lambda row, reason: refused.append((row["id"], reason)))
    # JSON has room for any depth, and orjson reads 1,024 levels of it.
    expected, left_out = (["a", "c"], "b") if suffix == ".parquet" else (["a", "b", "c"], "d")
    assert [one.id for one in read(path)] == expected
    assert written == len(expected)
    assert [name for name, _ in refused] == [left_out]
    with pytest.raises(InputError, match=repr(left_out)):
        write_documents(tmp_path / f"other{suffix}", given)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "_write_lines", full)
    with pytest.raises(InputError, match="no space left"):
        write_documents(tmp_path / "a.jsonl", [])


def test_parquet_needs_one_kind_a_column(tmp_path):
    with pytest.raises(InputError, match="field 'n'"):
        write_documents(tmp_path / "a.parquet", [{"n": 1}, {"n": "one"}])
    rows = [{"n": 1}] * 1024 + [{"n": "one"}]
    with pytest.raises(InputError, match="a field holds several kinds of value"):
        write_documents(tmp_path / "a.parquet", rows)
    assert write_documents(tmp_path / "b.parquet", [{"n": 1}] * 1024 + [{"n": 0.5}]) == 1025
    assert str(pq.read_schema(tmp_path / "b.parquet").field("n").type) == "double"


def test_unknown_suffix_and_unwritable_folder(tmp_path):
    with pytest.raises(InputError, match=r"its suffix must be one of \.jsonl"):
        write_documents(tmp_path / "a.csv", [])
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_documents(tmp_path / "file" / "a.jsonl", [])


def test_held_out_rule():
    ids = [f"document {number}" for number in range(4000)]
    held = {name for name in ids if in_heldout(name, 0.1)}
    assert 0.07 < len(held) / len(ids) < 0.13
    assert held < {name for name in ids if in_heldout(name, 0.2)}
    assert not any(in_heldout(name, 0.0) for name in ids)
    assert all(in_heldout(name, 1.0) for name in ids)
    assert id_hash("pep-0333") == 0xF8406CD109479B68  # the first 16 digits of: printf pep-0333 | b2sum
    place = 0xF8406CD109479B68 / 2**64
    assert in_heldout("pep-0333", place + 1e-9)
    assert not in_heldout("pep-0333", place)
