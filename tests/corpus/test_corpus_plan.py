"""Plans as they go: nothing is read ahead of its units, or twice; shards divide the corpus; pieces of large files."""

import gzip
import json
import os
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longlode.core.errors import ConfigError
from longlode.corpus import CorpusPlan, PlanStore, Shard, planning, read, read_unit, stores
from longlode.corpus.planning import plan


def lines(path, number, *, long_at=()):
    rows = [
        {"id": f"{path.name}-{n}", "text": "x" * (400 if n in long_at else n % 37)} for n in range(number)
    ]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Small and large files of all kinds; a piece is 2,000 bytes."""
    monkeypatch.setattr("longlode.corpus.planning.PIECE_BYTES", 2000)
    root = tmp_path / "in"
    root.mkdir()
    lines(root / "a.jsonl", 300, long_at=(50, 51, 52))
    lines(root / "b.jsonl", 10)
    lines(root / "c.jsonl.gz", 400)
    (root / "blank.jsonl").write_bytes(b"\n" * 5000)
    for n in range(7):
        (root / f"d{n}.txt").write_text("y" * (1 + 90 * n))
    pq.write_table(
        pa.table({"text": [f"{n} " * 20 for n in range(200)]}), root / "e.parquet", row_group_size=30
    )
    (root / "f.png").write_text("no text")
    return root


CUT = {"rows_per_unit": 9, "bytes_per_unit": 700}


def rows_of(units):
    return [row for unit in units for row in read_unit(unit)]


def count_opened(monkeypatch):
    opened = []
    real = stores.open_bytes

    def counting(path):
        opened.append(path.rsplit("/", 1)[-1])
        return real(path)

    monkeypatch.setattr(stores, "open_bytes", counting)
    return opened


def test_the_next_plan_of_the_same_files_opens_none_and_is_the_same(corpus, tmp_path, monkeypatch):
    store = PlanStore(tmp_path / "plan")
    whole = list(read(corpus))
    first = list(CorpusPlan(corpus, store=store, **CUT).units())
    assert rows_of(first) == whole
    assert first == plan(corpus, **CUT)
    opened = count_opened(monkeypatch)
    again = CorpusPlan(corpus, store=store, **CUT)
    assert list(again.units()) == first
    assert opened == []
    assert again.total_bytes == sum(unit.num_bytes for unit in first)
    # Another cut, or a file of another time, is read again; a torn file of the store is as none.
    list(CorpusPlan(corpus, store=store, rows_per_unit=8, bytes_per_unit=700).units())
    assert len(set(opened)) == 12
    opened.clear()
    os.utime(corpus / "a.jsonl", (1, 1))
    touched = list(CorpusPlan(corpus, store=store, **CUT).units())
    assert set(opened) == {"a.jsonl"}
    assert [unit.fingerprint for unit in touched] == [unit.fingerprint for unit in first]
    for path in (tmp_path / "plan").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert list(CorpusPlan(corpus, store=store, **CUT).units()) == touched


def test_nothing_is_read_before_it_is_asked_for(corpus, monkeypatch):
    opened = count_opened(monkeypatch)
    units = CorpusPlan(corpus, **CUT).units()
    assert opened == []
    next(units)
    assert opened == ["a.jsonl"]


def test_a_plan_that_was_stopped_goes_on_at_the_last_piece(corpus, tmp_path, monkeypatch):
    store = PlanStore(tmp_path / "plan")
    expected = plan(corpus / "a.jsonl", **CUT)
    begun = CorpusPlan(corpus / "a.jsonl", store=store, **CUT).units()
    taken = [next(begun) for _ in range(len(expected) - 2)]
    begun.close()
    assert taken == expected[:-2]
    from_where = []
    real = planning.LineScan

    def noting(*arguments):
        from_where.append(arguments[6])
        return real(*arguments)

    monkeypatch.setattr(planning, "LineScan", noting)
    assert list(CorpusPlan(corpus / "a.jsonl", store=store, **CUT).units()) == expected
    assert from_where[0] >= (corpus / "a.jsonl").stat().st_size - 2 * 2000 > 2000


@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_shards_hold_every_row_once_and_the_units_of_lines_are_those_of_all(corpus, tmp_path, total):
    everything = plan(corpus, **CUT)
    expected = sorted((row.file, row.row) for row in rows_of(everything))
    names = {unit.fingerprint for unit in everything if unit.kind != "files"}
    found, shared = [], []
    for number in range(1, total + 1):
        store = PlanStore(tmp_path / "plan")  # one folder for all
        for _ in range(2):
            units = list(CorpusPlan(corpus, shard=Shard(number, total), store=store, **CUT).units())
        found += [(row.file, row.row) for row in rows_of(units)]
        shared += [unit.fingerprint for unit in units if unit.kind != "files"]
    assert sorted(found) == expected
    assert set(shared) == names
    sizes = [
        sum(unit.num_bytes for unit in CorpusPlan(corpus, shard=Shard(n + 1, total), **CUT).units())
        for n in range(total)
    ]
    assert min(sizes) > 0.25 * sum(sizes) / total


def test_a_shard_does_not_open_the_small_files_of_others(tmp_path, monkeypatch):
    for n in range(40):
        lines(tmp_path / f"{n:02d}.jsonl", 20)
    opened = count_opened(monkeypatch)
    list(CorpusPlan(tmp_path, shard=Shard(2, 4), rows_per_unit=100, bytes_per_unit=3000).units())
    assert 5 <= len(set(opened)) <= 25
    with pytest.raises(ConfigError, match="5/4"):
        Shard(5, 4)
    with pytest.raises(ConfigError, match="not both"):
        CorpusPlan(tmp_path, shard=Shard(1, 4), limit=3)


def test_the_total_is_that_of_the_files_from_the_start(tmp_path):
    for n in range(5):
        lines(tmp_path / f"{n}.jsonl", 50)
        (tmp_path / f"{n}.txt").write_text("z" * 300)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    started = CorpusPlan(tmp_path, **CUT)
    totals = [started.total_bytes, *(started.total_bytes for _ in started.units())]
    assert set(totals) == {size}
    assert started.is_done


@pytest.mark.parametrize("cut", [0, 1, 700], ids=["whole", "torn", "cut short"])
def test_units_with_their_bytes_have_the_same_rows_and_the_same_names(tmp_path, cut):
    draw = random.Random()
    rows = ["", "  ", "no json", *(json.dumps({"text": "w" * draw.randrange(1, 90)}) for _ in range(300))]
    draw.shuffle(rows)
    rows.insert(150, json.dumps({"text": "v" * 5000}))  # longer than what is kept of a unit
    data = b"\xef\xbb\xbf" + "\n".join(rows).encode()
    packed = gzip.compress(data)
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) - cut])
    found = CorpusPlan(tmp_path, rows_per_unit=50, bytes_per_unit=700)
    bare, full = list(found.units()), list(found.units(with_data=True))
    assert bare == full
    assert [unit.to_json() for unit in bare] == [unit.to_json() for unit in full]
    assert not any(unit.data for unit in bare)
    assert sum(unit.data is not None for unit in full) >= len(full) // 2
    assert any(unit.data is None for unit in full), "the long row's"
    for unit in full:
        assert list(read_unit(unit)) == list(read_unit(unit.bare()))


@pytest.mark.parametrize("limit", [1, 9, 100, 333])
def test_the_size_under_a_limit_is_that_of_its_rows_not_of_the_input(tmp_path, limit):
    rows = [json.dumps({"text": "w" * 100, "id": f"{n:04d}"}) + "\n" for n in range(2000)]
    (tmp_path / "a.jsonl").write_text("".join(rows))
    found = CorpusPlan(tmp_path, rows_per_unit=9, limit=limit)
    totals = [found.total_bytes for _ in found.units()]
    assert len(totals) == -(-limit // 9)
    assert max(abs(total - limit * len(rows[0])) for total in totals) <= len(rows[0])
