"""Racing by the engine: new pairs only, the same bytes whatever happens, an ordinary scores folder at the end."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mining_fakes import (
    POISON,
    BrokenReader,
    CacheReader,
    FaultyReader,
    make_reader,
    random_text,
)

from longlode.core.errors import ConfigError, InputError
from longlode.core.records import read_record, write_jsonl
from longlode.corpus import plan
from longlode.mining import RaceRule, ScoreSettings, make_scorer, score, select
from longlode.mining.engine.parts import read_pairs
from longlode.mining.engine.work import Work, score_unit
from longlode.mining.racing.race import race
from longlode.mining.racing.standings import is_clear
from longlode.mining.requests import BatchSize
from longlode.mining.sampling import document_rng, nested_pairs, sample_pairs
from longlode.mining.scorers import SCORERS
from longlode.mining.selection_files import dropped_path, read_selection

SETTINGS = ScoreSettings(segment=8, rows_per_unit=4)
RULE = RaceRule(top=0.5, first_pairs=8, z=1.5)
HUGE = replace(RULE, z=1e9)


def corpus_rows(count=10, vocabularies=(3, 4, 5, 6, 7, 8, 40)):
    """Documents of few words, which foretell one another's, and of many."""
    return [
        {
            "id": f"doc-{n:02d}",
            "source": "even" if n % 2 == 0 else "odd",
            "text": random_text(f"doc-{n:02d}", 240 + 9 * n, vocab=vocabularies[n % len(vocabularies)]),
        }
        for n in range(count)
    ]


@pytest.fixture
def corpus(tmp_path):
    write_jsonl(tmp_path / "corpus.jsonl", corpus_rows())
    return tmp_path / "corpus.jsonl"


def strength(most=64):
    return make_scorer("strength", pairs=most, options={"max_segments": 30})


def run(inputs, out, *, rule=RULE, reader=None, most=64, settings=SETTINGS, **options):
    reader = reader or make_reader
    return race(
        inputs,
        out,
        scorer=strength(most),
        rule=rule,
        make_reader=reader if callable(reader) else lambda: reader,
        reader_fingerprint="cache-model",
        settings=settings,
        **options,
    )


def plain(inputs, out, *, most=64, settings=SETTINGS):
    options = {"make_reader": make_reader, "reader_fingerprint": "cache-model", "settings": settings}
    return score(inputs, out, scorer=strength(most), **options)


def rows(out):
    names = [part["part"] for part in read_record(out, "scores")["parts"]]
    return [row for name in names for row in pq.read_table(out / "parts" / name).to_pylist()]


def all_bytes(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.parquet"))}


def test_ranges_side_by_side_are_the_pairs_of_the_whole():
    def drawn(start, stop):
        rng = document_rng(0, "id", "hash", "pairs")
        return set(
            zip(
                *map(np.ndarray.tolist, nested_pairs(*sample_pairs(40, 200, rng), start, stop, rng)),
                strict=True,
            )
        )

    whole = sample_pairs(40, 200, document_rng(0, "id", "hash", "pairs"))
    assert drawn(0, 200) == drawn(0, 10**9) == set(zip(*map(np.ndarray.tolist, whole), strict=True))
    assert len(drawn(0, 32)) == 32
    assert drawn(0, 32) < drawn(0, 64)
    assert drawn(0, 32) | drawn(32, 64) == drawn(0, 64)
    assert drawn(64, 200).isdisjoint(drawn(0, 64))
    assert drawn(200, 300) == set()


def test_the_first_pairs_are_a_uniform_draw():
    counts = np.zeros((8, 8))
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        targets, sources = nested_pairs(*sample_pairs(8, 20, rng), 0, 7, rng)
        counts[targets, sources] += 1
    assert abs(counts[np.tril_indices(8, -1)] - 500).max() < 6 * np.sqrt(500 * 0.75)


def test_each_pair_is_read_once_and_decided_documents_no_more(corpus, tmp_path):
    reader = CacheReader()
    summary = run(corpus, tmp_path / "out", reader=reader)
    got = rows(tmp_path / "out")
    assert [row["id"] for row in got] == [row["id"] for row in corpus_rows()]
    assert {row["num_pairs"] for row in got} <= {8, 16, 32, 64}
    assert len({row["num_pairs"] for row in got}) > 2
    assert sum(reader.given_sizes) == sum(row["num_pairs"] for row in got)
    assert summary.cost["tokens_given"] == 8 * sum(reader.given_sizes)
    assert summary.cost["tokens_alone"] == 8 * sum(reader.alone_sizes)
    assert summary.cost["document_tokens"] == sum(row["num_tokens"] for row in got)
    told = read_record(tmp_path / "out")["race"]
    assert (told["top"], told["by"], told["z"], told["first_pairs"]) == (0.5, [], 1.5, 8)
    for name in ("tokens_alone", "tokens_given"):
        assert sum(one[name] for one in told["rounds"]) == summary.cost[name]
    assert told["rounds"][0]["documents"] == 10
    assert told["num_decided_early"] == sum(row["num_pairs"] < 64 for row in got)
    assert told["rounds"][-1]["num_open"] == 0
    # Rounds read parts of units, and only of those with an open document.
    for number, one in enumerate(told["rounds"], 1):
        parts = [pq.read_table(path) for path in (tmp_path / f"out/rounds/{number}/parts").iterdir()]
        assert sum(table.num_rows for table in parts) == one["documents"]
        assert all(table.num_rows > 0 for table in parts)


def is_cheap(summary):
    """Clear documents at 8 pairs each cost a fraction of 64 pairs each."""
    return summary.cost["tokens_given"] <= 8 * 10 * 8 * 2


def test_a_race_is_cheap_where_all_is_clear_and_one_that_stops_nobody_is_not(tmp_path, monkeypatch):
    docs = corpus_rows(vocabularies=(3, 60))
    write_jsonl(tmp_path / "in.jsonl", docs)
    assert is_cheap(run(tmp_path / "in.jsonl", tmp_path / "out"))
    kept = select(tmp_path / "out", tmp_path / "kept.jsonl", top=0.5)
    assert kept.num_selected == 5
    assert kept.remark == ""
    dropped = pq.read_table(kept.dropped_path).to_pylist()
    assert {row["source"] for row in dropped} == {"odd"}
    monkeypatch.setattr(
        "longlode.mining.racing.standings.is_clear", lambda s, rule: is_clear(s, rule) & False
    )
    assert not is_cheap(run(tmp_path / "in.jsonl", tmp_path / "broken"))


@pytest.mark.parametrize("most", [64, None])
def test_with_a_huge_z_it_equals_the_plain_score(corpus, tmp_path, most):
    settings = replace(SETTINGS, keep_pairs=True)
    plain(corpus, tmp_path / "plain", most=most, settings=settings)
    summary = run(corpus, tmp_path / "race", rule=HUGE, most=most, settings=settings)
    assert read_record(tmp_path / "race")["race"]["num_decided_early"] == 0
    expected, got = rows(tmp_path / "plain"), rows(tmp_path / "race")
    for one, other in zip(expected, got, strict=True):
        assert one.keys() == other.keys()
        # Pairs are stored in float32, so what is made of them differs in the seventh digit; what is stored does not.
        for name, value in one.items():
            same = pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else value
            assert other[name] == same, name
    kinds = ("inputs", "settings", "scorer", "reader", "counts", "num_documents", "complete", "num_units")
    records = [read_record(tmp_path / name) for name in ("plain", "race")]
    assert [records[0][name] for name in kinds] == [records[1][name] for name in kinds]
    assert records[0].keys() | {"race"} == records[1].keys()
    assert summary.cost["tokens_given"] == records[0]["cost"]["tokens_given"]


def test_select_and_record_take_raced_scores_for_scores(corpus, tmp_path):
    plain(corpus, tmp_path / "plain", most=None)
    run(corpus, tmp_path / "race", rule=replace(RULE, z=3.0), most=None)
    chosen = {}
    for name in ("plain", "race"):
        select(tmp_path / name, tmp_path / f"{name}.jsonl", top=0.5)
        chosen[name] = {
            row["id"] for row in pq.read_table(dropped_path(tmp_path / f"{name}.jsonl")).to_pylist()
        }
    assert len(chosen["plain"]) == 5
    assert chosen["plain"] == chosen["race"]
    for rule in (
        {"top": 0.3},
        {"min_score": 0.0},
        {"top": 0.5, "by": ("source",)},
        {"top": 0.5, "column": "gain_nats"},
    ):
        summary = select(tmp_path / "race", tmp_path / "other.jsonl", overwrite=True, **rule)
        assert "These scores were raced for top 0.5: elsewhere they are coarse" in summary.remark
        assert read_record_of(tmp_path / "other.jsonl")["remark"] == summary.remark
        assert select(tmp_path / "plain", tmp_path / "other.jsonl", overwrite=True, **rule).remark == ""
    assert "remark" not in read_record_of(tmp_path / "other.jsonl")


def read_record_of(path):

    return read_selection(path)


def test_groups_have_cuts_of_their_own(tmp_path):
    # Far apart between the sources, close together within each.
    docs = corpus_rows(vocabularies=(4, 50))
    write_jsonl(tmp_path / "in.jsonl", docs)
    by_source = replace(RULE, by=("source",))
    alike, apart = (
        run(tmp_path / "in.jsonl", tmp_path / str(n), rule=rule) for n, rule in enumerate((RULE, by_source))
    )
    assert is_cheap(alike)
    assert not is_cheap(apart)
    assert read_record(tmp_path / "1")["race"]["by"] == ["source"]
    kept = select(tmp_path / "1", tmp_path / "kept.jsonl", top=0.5, by=("source",))
    assert kept.remark == ""
    assert kept.num_groups == 2
    other = select(tmp_path / "1", str(tmp_path / "other.jsonl"), top=0.5)
    assert "raced for top 0.5 by source" in other.remark
    by_length = run(tmp_path / "in.jsonl", tmp_path / "2", rule=replace(RULE, by=("length", "source")))
    assert by_length.complete


def test_workers_change_nothing(corpus, tmp_path):
    rule = replace(HUGE, first_pairs=32)
    run(corpus, tmp_path / "one", rule=rule)
    summary = run(corpus, tmp_path / "two", rule=rule, num_workers=2)
    assert all_bytes(tmp_path / "two") == all_bytes(tmp_path / "one")
    assert summary.num_reused == 0


class Dying(CacheReader):
    """Is interrupted at a certain call."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def given(self, states, sources, targets):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return super().given(states, sources, targets)


@pytest.mark.parametrize("calls", [1, 6])
def test_an_interrupt_anywhere_changes_no_byte(corpus, tmp_path, calls):
    counter = CacheReader()
    run(corpus, tmp_path / "whole", reader=counter)
    assert len(counter.given_sizes) > calls
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "out", reader=Dying(calls))
    assert not (tmp_path / "out/record.json").exists()
    run(corpus, tmp_path / "out")
    assert all_bytes(tmp_path / "out") == all_bytes(tmp_path / "whole")
    # All is there now: nothing is read again, and a final part that is torn is made again.
    idle = CacheReader()
    assert run(corpus, tmp_path / "out", reader=idle).num_reused == 3
    torn = next((tmp_path / "out/parts").iterdir())
    torn.write_bytes(torn.read_bytes()[:-20])
    assert run(corpus, tmp_path / "out", reader=idle).num_reused == 2
    assert idle.alone_sizes == []
    assert all_bytes(tmp_path / "out") == all_bytes(tmp_path / "whole")


KILLED = """
import os, signal, sys
from pathlib import Path
import test_race
calls = int(sys.argv[3])
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
class Killed(test_race.Dying):
    def given(self, states, sources, targets):
        if self.calls == 0:
            die()
        return super().given(states, sources, targets)
if calls < 0:  # while the parts of the result are written
    import longlode.mining.racing.rounds as rounds
    real = rounds.write_part
    def write(path, *rest, **options):
        (die if len(list(path.parent.iterdir())) == 2 else real)(path, *rest, **options)
    rounds.write_part = write
test_race.run(Path(sys.argv[1]), Path(sys.argv[2]), reader=Killed(calls if calls >= 0 else 10**9))
"""


@pytest.mark.parametrize("calls", [6, -1])
def test_a_kill_changes_no_byte(corpus, tmp_path, calls):
    run(corpus, tmp_path / "whole")
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", KILLED, str(corpus), str(tmp_path / "out"), str(calls)]
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()
    assert 0 < len(all_bytes(tmp_path / "out")) < len(all_bytes(tmp_path / "whole"))
    run(corpus, tmp_path / "out")
    assert all_bytes(tmp_path / "out") == all_bytes(tmp_path / "whole")


def test_another_cut_reads_on_from_what_is_there(corpus, tmp_path):
    run(corpus, tmp_path / "out")
    reader = CacheReader()
    with pytest.raises(InputError, match="race"):
        run(corpus, tmp_path / "out", rule=replace(RULE, top=0.3), reader=reader)
    summary = run(corpus, tmp_path / "out", rule=replace(RULE, top=0.3), reader=reader, overwrite=True)
    assert 8 * sum(reader.given_sizes) <= summary.cost["tokens_given"] - 8 * 10 * 8  # round one is there
    run(corpus, tmp_path / "fresh", rule=replace(RULE, top=0.3))
    assert rows(tmp_path / "out") == rows(tmp_path / "fresh")


def test_rows_without_a_score_and_short_documents_keep_their_rows(tmp_path):
    docs = corpus_rows(6)
    docs[1:1] = [
        {"id": "short", "text": "1 2 3"},
        {"id": "mute"},
        {"id": "few pairs", "text": random_text("few pairs", 30)},
        {"id": "letters", "text": "not numbers"},
    ]
    write_jsonl(tmp_path / "in.jsonl", docs)
    summary = run(tmp_path / "in.jsonl", tmp_path / "race", rule=HUGE)
    plain(tmp_path / "in.jsonl", tmp_path / "plain")
    got, expected = rows(tmp_path / "race"), rows(tmp_path / "plain")
    assert summary.counts == {"failed": 2, "ok": 7, "too_short": 1}
    assert [row for row in got if row["status"] != "ok"] == [row for row in expected if row["status"] != "ok"]
    few = next(row for row in got if row["id"] == "few pairs")
    assert few["num_pairs"] == 3
    rounds = read_record(tmp_path / "race")["race"]["rounds"]
    assert (rounds[0]["documents"], rounds[0]["num_spent"], rounds[1]["documents"]) == (10, 1, 6)


def test_nothing_to_score_is_no_race(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [{"id": "short", "text": "1 2 3"}, {"id": "mute"}])
    summary = run(tmp_path / "in.jsonl", tmp_path / "out")
    assert summary.counts == {"failed": 1, "too_short": 1}
    assert len(read_record(tmp_path / "out")["race"]["rounds"]) == 1


@pytest.mark.parametrize("rows_per_unit", [1, 2, 4])
def test_lines_of_nothing_change_nothing(tmp_path, rows_per_unit):
    settings = replace(SETTINGS, rows_per_unit=rows_per_unit)
    write_jsonl(tmp_path / "in.jsonl", corpus_rows())
    lines = (tmp_path / "in.jsonl").read_text().splitlines()
    (tmp_path / "gaps.jsonl").write_text("\n" * 5 + "\n\n\n\n\n\n".join(lines) + "\n" * 9)
    expected = run(tmp_path / "in.jsonl", tmp_path / "out", settings=settings)
    summary = run(tmp_path / "gaps.jsonl", tmp_path / "gaps", settings=settings)
    assert summary.counts == expected.counts
    assert len(rows(tmp_path / "gaps")) == len(rows(tmp_path / "out"))


class LateFault(FaultyReader):
    """Reads everything until 32 pairs are read: four of each of eight documents, one round."""

    def alone(self, segments):
        return super().alone(segments) if sum(self.given_sizes) >= 32 else CacheReader.alone(self, segments)


@pytest.mark.parametrize("fault", ["raise", "nan"])
def test_a_document_that_fails_in_a_later_round_has_failed(tmp_path, fault):
    docs, rule = corpus_rows(8), replace(HUGE, first_pairs=4)
    docs[2]["text"] = docs[2]["text"].replace("3", str(POISON))
    write_jsonl(tmp_path / "in.jsonl", docs)
    run(tmp_path / "in.jsonl", tmp_path / "bad", reader=LateFault(fault), rule=rule)
    run(tmp_path / "in.jsonl", tmp_path / "good", rule=rule)
    bad, good = rows(tmp_path / "bad"), rows(tmp_path / "good")
    assert bad[2]["status"] == "failed"
    assert bad[2]["reason"].startswith("reader: ")
    assert bad[2]["score"] is bad[2]["num_pairs"] is None
    assert bad[2]["num_tokens"] == good[2]["num_tokens"]
    assert [row for n, row in enumerate(bad) if n != 2] == [row for n, row in enumerate(good) if n != 2]
    rounds = read_record(tmp_path / "bad")["race"]["rounds"]
    assert [one["num_spent"] + one["num_open"] for one in rounds[:2]] == [8, 7]


def test_of_two_documents_with_one_id_the_second_is_not_read_on(tmp_path):
    docs = corpus_rows(8)
    docs[6]["id"] = docs[1]["id"]
    write_jsonl(tmp_path / "in.jsonl", docs)
    summary = run(tmp_path / "in.jsonl", tmp_path / "out", rule=HUGE)
    assert summary.num_duplicate_ids == 1
    assert [row["num_pairs"] for row in rows(tmp_path / "out")] == [64] * 6 + [8, 64]
    assert read_record(tmp_path / "out")["race"]["rounds"][0]["num_open"] == 7


def test_documents_that_all_fail_are_at_fault_where_the_reader_reads_other_text(tmp_path):
    docs = corpus_rows(8)
    for n in (0, 1, 2, 3):  # the whole first unit
        docs[n]["text"] = docs[n]["text"].replace("1", str(POISON))
    write_jsonl(tmp_path / "in.jsonl", docs)
    summary = run(tmp_path / "in.jsonl", tmp_path / "race", reader=FaultyReader("raise"))
    assert summary.complete
    assert summary.counts == {"failed": 4, "ok": 4}
    reader = FaultyReader("raise")
    options = {"make_reader": lambda: reader, "reader_fingerprint": "cache-model", "settings": SETTINGS}
    assert score(tmp_path / "in.jsonl", tmp_path / "plain", scorer=strength(), **options).complete
    failed = [[row for row in rows(tmp_path / out) if row["status"] == "failed"] for out in ("race", "plain")]
    assert failed[0] == failed[1]
    assert {row["reason"].split(":")[0] for row in failed[0]} == {"reader"}


def test_units_that_fail_stop_the_race_until_the_next_run(corpus, tmp_path):
    summary = run(corpus, tmp_path / "out", reader=BrokenReader())
    assert not summary.complete
    assert len(summary.failed_units) == 3
    assert summary.num_units == 3
    with pytest.raises(InputError, match="is not complete: 3 of 3 units"):
        select(tmp_path / "out", tmp_path / "kept.jsonl", top=0.5)
    assert run(corpus, tmp_path / "out").complete
    run(corpus, tmp_path / "whole")
    assert all_bytes(tmp_path / "out") == all_bytes(tmp_path / "whole")


@pytest.mark.parametrize("name", sorted(set(SCORERS) - {"strength"}))
def test_scores_that_are_no_mean_over_pairs_are_refused(corpus, tmp_path, name):
    why = "a sum that grows with the pairs" if name in ("paper", "release") else "not made of sampled pairs"
    with pytest.raises(
        ConfigError, match=f"the scorer {name!r} cannot be raced: its score is {why}.*'strength'"
    ):
        race(corpus, tmp_path / "out", scorer=make_scorer(name), rule=RULE)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="reads a model"):
        race(corpus, tmp_path / "out", scorer=strength(), rule=RULE)


def test_a_few_pairs_do_not_say_what_paper_gives(tmp_path):
    """Why it is refused: per pair, what few pairs give is far above what all give, document by document otherwise."""
    write_jsonl(tmp_path / "in.jsonl", corpus_rows(7))
    found = {}
    for pairs in (8, None):
        for name in ("paper", "strength"):
            out = tmp_path / f"{name}{pairs}"
            options = {"make_reader": make_reader, "reader_fingerprint": "cache-model", "settings": SETTINGS}
            score(tmp_path / "in.jsonl", out, scorer=make_scorer(name, pairs=pairs), **options)
            found[name, pairs] = np.array([row["score"] for row in rows(out)])
            if name == "paper":
                found[name, pairs] /= [row["num_pairs"] for row in rows(out)]
    ratio = found["paper", 8] / found["paper", None]
    assert np.median(ratio) > 1.3
    assert ratio.max() > 1.5 * ratio.min()
    assert abs(np.mean(found["strength", 8] - found["strength", None])) < 0.05


class Counting(CacheReader):
    """Remembers how many texts it has encoded."""

    num_texts = 0

    def encode(self, texts):
        self.num_texts += len(texts)
        return super().encode(texts)


def test_only_the_rows_asked_for_are_encoded_scored_and_listed(corpus):
    unit = plan([corpus], rows_per_unit=10)[0]
    reader = Counting()
    work = Work(strength(), SETTINGS, reader, BatchSize())
    everything = score_unit(unit, work).rows
    assert reader.num_texts == 10
    part = score_unit(unit, work, (1, 7))
    assert reader.num_texts == 12
    assert part.rows == [everything[1], everything[7]]
    assert part.document_tokens == sum(row["num_tokens"] for row in part.rows)
    assert part.tokens_given == 8 * 128
    assert score_unit(unit, work, ()).rows == []


def test_pairs_come_back_as_they_were_written(corpus, tmp_path):
    plain(corpus, tmp_path / "out", settings=replace(SETTINGS, keep_pairs=True))
    for path in (tmp_path / "out/parts").iterdir():
        stored = pq.read_table(path).column("pairs").to_pylist()
        for row, pairs in zip(stored, read_pairs(path), strict=True):
            names = pairs.dtype.names
            assert [dict(zip(names, pair, strict=True)) for pair in pairs.tolist()] == row
