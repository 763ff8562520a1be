"""Units hold every row exactly once, whatever their size, and are named by content alone."""

import gzip
import itertools
import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longlode.core.errors import ConfigError
from longlode.corpus import Document, Unit, plan, read, read_unit
from longlode.corpus import streams as corpus_streams

LINE = st.sampled_from(
    [b"", b" ", b'{"text": "a"}', b'{"text": "%s"}' % (b"long" * 40), b"{broken", b'{"id": 1}']
)
LIMITS = {
    "rows_per_unit": st.integers(1, 40),
    "bytes_per_unit": st.sampled_from([1, 30, 200, 1 << 20]),
}
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
COMPRESS = {"": bytes, ".gz": lambda data: gzip.compress(data, mtime=0), ".zst": zstandard.compress}


def check_cover(units, num_rows, rows_per_unit):
    """The units' row ranges follow each other, from 0 to num_rows, none empty, none too long."""
    edges = [0, *(unit.stop for unit in units)]
    assert [(unit.start, unit.stop) for unit in units] == list(itertools.pairwise(edges))
    assert edges[-1] == num_rows
    assert all(0 < unit.stop - unit.start <= rows_per_unit for unit in units)


def check_rows(units, whole):
    """In order, the units give what a whole read gives; out of order, each gives the same as in order."""
    parts = [list(read_unit(unit)) for unit in units]
    assert [row for part in parts for row in part] == whole
    assert [list(read_unit(unit)) for unit in reversed(units)] == parts[::-1]


@FEW
@given(
    body=st.lists(LINE, max_size=30),
    newline=st.booleans(),
    suffix=st.sampled_from(["", ".gz", ".zst"]),
    **LIMITS,
)
def test_units_of_lines(tmp_path, body, newline, suffix, rows_per_unit, bytes_per_unit):
    data = b"\n".join(body) + b"\n" * newline
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](data))
    units = plan(path, rows_per_unit=rows_per_unit, bytes_per_unit=bytes_per_unit)
    check_rows(units, list(read(path)))
    if data.strip():
        check_cover(units, len(data.splitlines()), rows_per_unit)
    else:
        assert [unit.files[0].status for unit in units] == ["skipped"]


@FEW
@given(groups=st.lists(st.integers(1, 70), min_size=1, max_size=4), **LIMITS)
def test_units_of_parquet(tmp_path, groups, rows_per_unit, bytes_per_unit):
    path = tmp_path / "a.parquet"
    numbers = itertools.count()
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        for size in groups:
            writer.write_table(pa.table({"text": [f"row {next(numbers)}" for _ in range(size)]}))
    units = plan(path, rows_per_unit=rows_per_unit, bytes_per_unit=bytes_per_unit)
    check_cover(units, sum(groups), rows_per_unit)
    whole = list(read(path))
    assert [row.text for row in whole] == [f"row {number}" for number in range(sum(groups))]
    check_rows(units, whole)


@FEW
@given(
    sizes=st.lists(
        st.one_of(st.integers(0, 50), st.just("records"), st.just("picture")), min_size=1, max_size=90
    ),
    **LIMITS,
)
def test_units_of_whole_files(tmp_path, sizes, rows_per_unit, bytes_per_unit):
    root = tmp_path / "in"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    (root / "zz.txt").write_text("always one")
    for number, size in enumerate(sizes):
        if isinstance(size, int):
            (root / f"{number:03d}.txt").write_text("x" * size)
        elif size == "records":
            (root / f"{number:03d}.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
        else:
            (root / f"{number:03d}.png").write_text("x")
    units = plan(root, rows_per_unit=rows_per_unit, bytes_per_unit=bytes_per_unit)
    whole = list(read(root))
    assert len(whole) == 1 + sum(2 if size == "records" else 1 for size in sizes)
    check_rows(units, whole)
    for unit in units:
        assert len(unit.files) <= min(512, rows_per_unit)
        assert unit.num_bytes <= bytes_per_unit or len(unit.files) == 1


def test_the_cover_check_sees_a_lost_and_a_repeated_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n' * 10)
    units = plan(path, rows_per_unit=3)
    for broken in (units[:1] + units[2:], units[:2] + units[1:], units[:-1]):
        with pytest.raises(AssertionError):
            check_cover(broken, 10, 3)


def test_json_round_trip_and_names(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n' * 10)
    (tmp_path / "b.txt").write_text("b")
    units = plan(tmp_path, rows_per_unit=4)
    again = [Unit.from_json(json.loads(json.dumps(unit.to_json()))) for unit in units]
    assert again == units
    names = [unit.fingerprint for unit in units]
    assert len(set(names)) == len(units) == 4
    assert [unit.fingerprint for unit in again] == names


def test_names_follow_content_not_place_or_time(tmp_path):
    first = tmp_path / "first" / "deep"
    first.mkdir(parents=True)
    (first / "a.jsonl").write_bytes(b'{"text": "a"}\n' * 10)
    (first / "b.txt").write_text("b")
    pq.write_table(pa.table({"text": ["a"]}), first / "c.parquet")
    (first / "d.png").write_text("not read")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    os.utime(tmp_path / "second" / "deep" / "a.jsonl", (1, 1))

    def names(root):
        return [unit.fingerprint for unit in plan(root, rows_per_unit=5)]

    before = names(tmp_path / "first")
    assert names(tmp_path / "second") == before
    data = (first / "a.jsonl").read_bytes()
    (first / "a.jsonl").write_bytes(data.replace(b'"a"', b'"b"', 1))
    after = names(tmp_path / "first")
    assert after[:2] != before[:2]
    assert after[2:] == before[2:]
    (first / "b.txt").rename(first / "bb.txt")
    assert names(tmp_path / "first")[2] != after[2]


def test_the_same_bytes_under_forbidden_and_empty_are_named_too(tmp_path):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "bad.parquet").write_bytes(b"no")
    units = plan(tmp_path)
    assert len(units) == 1
    assert len({file.content for file in units[0].files}) == 2
    assert all(len(file.content) == 64 for file in units[0].files)


def test_units_of_an_archive_do_not_start_over(tmp_path, monkeypatch):
    body = b"".join(b'{"text": "%d %s"}\n' % (i, os.urandom(40).hex().encode()) for i in range(20_000))
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(body))
    units = plan(path, rows_per_unit=500)
    num_read = 0
    original = corpus_streams.ByteStream._read_raw

    def counting(stream):
        nonlocal num_read
        data = original(stream)
        num_read += len(data)
        return data

    monkeypatch.setattr(corpus_streams.ByteStream, "_read_raw", counting)
    rows = [row for unit in units for row in read_unit(unit)]
    assert len(units) == 40
    assert len(rows) == 20_000
    assert num_read <= 1.01 * path.stat().st_size
    num_read = 0
    skipping = [row for unit in units[::2] for row in read_unit(unit)]
    assert skipping == [row for row in rows if (row.row // 500) % 2 == 0]
    assert num_read <= 1.01 * path.stat().st_size


def test_an_abandoned_unit_does_not_harm_the_next(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(b'{"text": "%d"}\n' % i for i in range(100))))
    first, second = plan(path, rows_per_unit=50)
    begun = read_unit(first)
    assert isinstance(next(begun), Document)
    del begun
    assert [row.row for row in read_unit(second)] == list(range(50, 100))
    assert [row.row for row in read_unit(first)] == list(range(50))


def test_limits_below_one_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    for limits in ({"rows_per_unit": 0}, {"bytes_per_unit": 0}):
        with pytest.raises(ConfigError, match="must be at least 1"):
            plan(tmp_path, **limits)
