"""Files that change or cannot be read after they were planned: rows that say so, and no result of another content."""

import errno
import gzip
import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longlode.core.records import write_jsonl
from longlode.corpus import Document, Unit, plan, read, read_unit

RECORDS = [{"id": f"r{n}", "text": f"text number {n} of ten"} for n in range(10)]


def write(kind: str, path: Path, records) -> None:
    if kind == "txt":
        path.write_text("\n".join(record["text"] for record in records))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path, compression=None, use_dictionary=False)
    elif kind == "jsonl.gz":
        write_jsonl(path.with_name("plain"), records)
        path.write_bytes(gzip.compress(path.with_name("plain").read_bytes(), compresslevel=0, mtime=0))
    else:
        write_jsonl(path, records)


def transient(unit: Unit):
    return [row.reason for row in read_unit(unit) if getattr(row, "transient", False)]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "jsonl.gz", "parquet"])
def test_a_file_of_the_same_size_with_another_content_is_not_what_was_planned(tmp_path, kind):
    path = tmp_path / f"in.{kind}"
    write(kind, path, RECORDS)
    units = plan(path, rows_per_unit=4)
    assert [reason for unit in units for reason in transient(unit)] == []
    size, modified = path.stat().st_size, path.stat().st_mtime_ns
    changed = [record | {"text": record["text"].replace("number 5", "number 6")} for record in RECORDS]
    write(kind, path, changed)
    assert path.stat().st_size == size
    # A change of Parquet is recognised by its time; of all others by the bytes read, even if the time was reset.
    os.utime(path, ns=(modified, modified + (1_000_000 if kind == "parquet" else 0)))
    hit = [bool(transient(unit)) for unit in units]
    if kind == "parquet":  # named by one hash of the file
        assert all(hit)
    else:  # rows 4 to 7 hold what changed
        assert hit == ([True] if kind == "txt" else [False, True, False])
    write(kind, path, RECORDS)
    os.utime(path, ns=(modified, modified))
    assert [reason for unit in units for reason in transient(unit)] == []


@pytest.mark.parametrize("kind", ["txt", "jsonl", "jsonl.gz"])
def test_a_file_that_was_only_touched_is_what_was_planned(tmp_path, kind):
    write(kind, tmp_path / f"in.{kind}", RECORDS)
    (unit,) = plan(tmp_path / f"in.{kind}")
    os.utime(tmp_path / f"in.{kind}", (1, 1))
    assert all(isinstance(row, Document) for row in read_unit(Unit.from_json(unit.to_json())))


def test_lines_that_are_appended_leave_the_units_before_them_as_they_are(tmp_path):
    path = tmp_path / "in.jsonl"
    write("jsonl", path, RECORDS)
    units = plan(path, rows_per_unit=4)
    with path.open("a") as stream:
        stream.write('{"id": "r10", "text": "one more"}\n')
    assert [bool(transient(unit)) for unit in units] == [False, False, False]
    after = plan(path, rows_per_unit=4)
    assert [one.fingerprint for one in after[:2]] == [one.fingerprint for one in units[:2]]
    assert after[2].fingerprint != units[2].fingerprint
    assert [row.id for row in read_unit(after[2])] == ["r8", "r9", "r10"]


def test_a_unit_cut_by_a_limit_is_checked_as_a_whole(tmp_path):
    path = tmp_path / "in.jsonl"
    write("jsonl", path, RECORDS)
    (unit,) = plan(path, rows_per_unit=8, limit=5)
    assert [row.id for row in read_unit(unit)] == [f"r{n}" for n in range(5)]
    path.write_bytes(path.read_bytes().replace(b"number 6", b"number 9"))  # beyond the limit, inside the unit
    assert "changed" in transient(unit)[0]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "jsonl.gz", "parquet", "arrow"])
def test_a_file_that_has_gone_or_cannot_be_opened_now(tmp_path, monkeypatch, kind):
    path = tmp_path / f"in.{kind}"
    if kind == "arrow":
        table = pa.Table.from_pylist(RECORDS)
        with pa.ipc.new_stream(path, table.schema) as sink:
            sink.write_table(table)
    else:
        write(kind, path, RECORDS)
    (unit,) = plan(path)
    path.rename(tmp_path / "away")
    assert transient(unit) == ["the file has gone since it was planned"]
    (tmp_path / "away").rename(path)
    real = Path.open

    def too_many(self, *args, **kwargs):
        if self == path:
            raise OSError(errno.EMFILE, "Too many open files", str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", too_many)
    assert transient(unit) == ["cannot be read: too many open files"]
    assert [row.transient for row in read(path)] == [True]
    monkeypatch.undo()
    assert len(list(read_unit(unit))) == (1 if kind == "txt" else 10)


class Failing:
    """A file of which the disk gives the first block only."""

    def __init__(self, inner):
        self._inner, self._reads = inner, 0

    def read(self, size=-1):
        self._reads += 1
        if self._reads > 1:
            raise OSError(errno.EIO, "Input/output error")
        return self._inner.read(size)

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._inner.close()


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_an_error_of_the_disk_is_no_property_of_the_content(tmp_path, monkeypatch, kind):
    path = tmp_path / f"in.{kind}"
    write(kind, path, [{"id": str(n), "text": f"{n} " * 25_000} for n in range(8)])
    (unit,) = plan(path, bytes_per_unit=1 << 30)
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *args, **kwargs: Failing(real(self, *args, **kwargs)))
    (reason,) = transient(unit)
    assert "input/output error" in reason
    (bad,) = [row for row in read(path) if not isinstance(row, Document)]
    assert bad.transient
    # While planning, the same: one row, which is not named by the content.
    (planned,) = plan(path)
    assert (planned.files[0].status, planned.files[0].content) == ("failed", "")
    assert len(list(read_unit(planned))) == 1


def test_damage_is_a_property_of_the_content(tmp_path):
    path = tmp_path / "in.jsonl.gz"
    write("jsonl.gz", path, RECORDS)
    path.write_bytes(path.read_bytes()[:-30])
    (unit,) = plan(path)
    rows = list(read_unit(unit))
    assert "cut short" in rows[-1].reason
    assert not rows[-1].transient
    assert rows == list(read(path))


def test_units_of_older_records_are_read(tmp_path):
    write("jsonl", tmp_path / "in.jsonl", RECORDS)
    (unit,) = plan(tmp_path / "in.jsonl")
    old = unit.to_json()
    del old["digest"], old["end"]
    old["checksum"] = 12345  # of format 3
    for name in ("modified", "source"):
        del old["files"][0][name]
    again = Unit.from_json(old)
    assert again == replace(unit, digest="", end=-1, files=(replace(unit.files[0], modified=-1, source=""),))
    assert len(list(read_unit(again))) == 10
