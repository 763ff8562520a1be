"""Progress within units: bytes, documents and tokens before a unit has its part."""

import json

import pytest
from mining_fakes import CacheReader, SlowReader, random_text

from longlode.core.errors import InputError
from longlode.corpus import plan
from longlode.mining import ScoreSettings, make_scorer, score
from longlode.mining.engine import pulse
from longlode.mining.engine.pulse import Count, Sign, Watch

SETTINGS = ScoreSettings(segment=8, rows_per_unit=4, batch_segments=4, batch_pairs=8)


@pytest.fixture
def lines(tmp_path):
    """Eleven records of unequal size, one of them unreadable: three units."""
    path = tmp_path / "in.jsonl"
    records = [json.dumps({"text": random_text(str(n), 60 + 40 * n)}) for n in range(10)]
    path.write_text("\n".join([*records[:5], "{", *records[5:]]) + "\n")
    return path


def watched(monkeypatch, inputs, out, *, every=0.0, **arguments):
    monkeypatch.setattr(pulse, "LISTEN_SECONDS", every)
    calls = []
    score(inputs, out, settings=SETTINGS, progress=calls.append, **arguments)
    return calls


def with_model():
    reader = CacheReader()
    return {
        "scorer": make_scorer("strength", pairs=20),
        "make_reader": CacheReader,
        "reader_fingerprint": reader.fingerprint,
    }


@pytest.mark.parametrize("name", ["strength", "gzip", "corpus"])
def test_bytes_grow_within_units_to_those_of_the_input(lines, tmp_path, monkeypatch, name):
    choice = {
        "strength": with_model(),
        "gzip": {"scorer": make_scorer("gzip")},
        "corpus": {"scorer": make_scorer("profile", options={"background": "corpus"})},
    }[name]
    monkeypatch.setattr("longlode.mining.engine.work._ENCODE_DOCUMENTS", 1)
    monkeypatch.setattr("longlode.mining.engine.work._GROUP_BLOCKS", 1)
    calls = watched(monkeypatch, lines, tmp_path / "out", **choice)
    size = lines.stat().st_size
    assert {call.total_bytes for call in calls} == {size}
    starts = [
        n for n, call in enumerate(calls) if call.num_bytes == 0 and call.units == 0 and not call.documents
    ]
    last_pass = calls[starts[-1] :] if name == "corpus" else calls
    assert last_pass[0].num_bytes == 0
    assert last_pass[-1].num_bytes == size
    assert last_pass[-1].documents == 11
    seen = [call.num_bytes for call in last_pass]
    assert seen == sorted(seen)
    # Before the first unit is done there are several values already, none beyond that unit.
    first = plan(lines, rows_per_unit=4)[0].num_bytes
    within = {call.num_bytes for call in last_pass if call.units == 0} - {0}
    assert len(within) >= 3
    assert max(within) <= first


def test_a_document_that_is_read_in_many_batches_moves_the_bytes(tmp_path, monkeypatch):
    (tmp_path / "in.txt").write_text(random_text("one", 400))
    calls = watched(monkeypatch, tmp_path / "in.txt", tmp_path / "out", **with_model())
    within = {call.num_bytes for call in calls if call.documents == 0}
    assert len(within) > 3


def test_a_resumed_run_counts_finished_units_at_once(lines, tmp_path, monkeypatch):
    choice = {"scorer": make_scorer("gzip")}
    watched(monkeypatch, lines, tmp_path / "out", limit=8, **choice)
    calls = watched(monkeypatch, lines, tmp_path / "out", every=1e9, **choice)
    done = sum(unit.num_bytes for unit in plan(lines, rows_per_unit=4)[:2])
    assert (calls[0].units, calls[0].num_bytes, calls[0].documents) == (2, done, 8)
    assert calls[-1].num_bytes == lines.stat().st_size


def test_an_error_of_the_callback_is_its_own_and_no_documents_(lines, tmp_path, monkeypatch):
    monkeypatch.setattr(pulse, "LISTEN_SECONDS", 0.0)

    def fail(done):
        if done.documents:
            raise InputError("enough")

    with pytest.raises(InputError, match="enough"):
        score(lines, tmp_path / "out", settings=SETTINGS, progress=fail, scorer=make_scorer("gzip"))
    summary = score(lines, tmp_path / "out", settings=SETTINGS, scorer=make_scorer("gzip"))
    assert (summary.num_reused, summary.counts) == (1, {"failed": 1, "ok": 10})


def test_workers_tell_how_far_their_units_are(lines, tmp_path, monkeypatch):
    calls = watched(
        monkeypatch, lines, tmp_path / "out", num_workers=2, **(with_model() | {"make_reader": SlowReader})
    )
    within = {call.num_bytes for call in calls if call.units == 0} - {0}
    assert within
    assert max(within) < sum(unit.num_bytes for unit in plan(lines, rows_per_unit=4)[:2])
    assert calls[-1].num_bytes == lines.stat().st_size
    assert [call.num_bytes for call in calls] == sorted(call.num_bytes for call in calls)


class Pipe:
    """The reading end of a pulse, without a process."""

    def __init__(self, *signs):
        self.signs = list(signs)

    def poll(self):
        return bool(self.signs)

    def recv(self):
        return self.signs.pop(0)


def test_the_last_count_of_each_living_worker_stands():
    first, later, other = Count("a", 0.25, 1, 10), Count("a", 0.5, 2, 30), Count("b", 0.1)
    pipe = Pipe(Sign(1, 1, True, first), Sign(1, 2, True, later), Sign(2, 1, True, other), Sign(3, 0, False))
    watch = Watch(pipe, silent_seconds=10, stuck_seconds=10)
    watch.stopped({1, 2, 3})
    assert watch.counts({1, 2, 3}) == {"a": later, "b": other}
    assert watch.counts({2, 3}) == {"b": other}
