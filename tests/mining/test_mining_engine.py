"""The engine: a row per document whatever happens, the same bytes whatever the workers, no silent zero."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mining_fakes
import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from mining_fakes import (
    POISON,
    BrokenReader,
    CacheReader,
    FaultyReader,
    SmallMemoryReader,
    make_faulty,
    make_nothing,
    make_reader,
    random_text,
    records,
)

from longlode.core.errors import ConfigError, InputError, ModelError
from longlode.core.processes import machine_tag
from longlode.core.records import read_record, write_jsonl
from longlode.mining import DocumentScore, ScoreSettings, make_scorer, score
from longlode.mining.requests import Pairs, Segments
from longlode.mining.scorers.strength import StrengthScorer

SETTINGS = ScoreSettings(segment=8, rows_per_unit=4, batch_segments=16, batch_pairs=32)
COLUMNS = [
    *("id", "source", "file", "row", "num_bytes", "num_tokens", "num_segments", "num_pairs"),
    *(
        "score",
        "strength_mean",
        "strength_max_mean",
        "gain_nats",
        "specificity_mean",
        "repetition",
        "gzip_ratio",
    ),
    *("status", "reason", "score_se"),
]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    write_jsonl(path, records(10))
    return path


def run(inputs, out, *, reader=None, scorer=None, settings=SETTINGS, **options):
    reader = reader or make_reader
    return score(
        inputs,
        out,
        scorer=scorer or make_scorer("paper", pairs=40, options={"max_segments": 16}),
        make_reader=reader if callable(reader) else lambda: reader,
        reader_fingerprint="cache-model",
        settings=settings,
        **options,
    )


def rows(out):
    names = [part["part"] for part in read_record(out, "scores")["parts"]]
    return [row for name in names for row in pq.read_table(out / "parts" / name).to_pylist()]


def parts(out):
    return {path.name: path.read_bytes() for path in sorted((out / "parts").iterdir())}


def test_every_document_gives_one_row_with_the_fixed_columns(corpus, tmp_path):
    calls = []
    summary = run(corpus, tmp_path / "out", progress=calls.append)
    table = pq.read_table(next((tmp_path / "out/parts").iterdir()))
    assert table.column_names == COLUMNS
    got = rows(tmp_path / "out")
    assert [row["id"] for row in got] == [f"doc-{n:03d}" for n in range(10)]
    assert all(row["status"] == "ok" and row["reason"] == "" for row in got)
    for n, row in enumerate(got):
        assert (row["num_tokens"], row["num_segments"]) == (120 + 7 * n, (120 + 7 * n) // 8)
        assert row["num_pairs"] == 40
        assert np.isfinite([row[name] for name in COLUMNS[8:15]]).all()
    assert summary.complete
    assert summary.counts == {"ok": 10}
    assert (calls[-1].units, calls[-1].total_units, calls[-1].documents) == (3, 3, 10)
    assert calls[-1].tokens == sum(row["num_tokens"] for row in got) == summary.cost["document_tokens"]
    segments = sum(min(row["num_segments"], 16) for row in got)
    assert summary.cost["tokens_alone"] == 8 * segments
    assert summary.cost["tokens_given"] == 8 * 400
    record = read_record(tmp_path / "out", "scores")
    assert record["score_quantiles"]["0"] == min(row["score"] for row in got)
    assert record["score_quantiles"]["1"] == max(row["score"] for row in got)
    assert record["scorer"] == {
        "name": "paper",
        "version": 2,
        "options": {"pairs": 40, "max_segments": 16},
    }


def test_bad_input_adds_up_and_loses_nothing(tmp_path):
    good = records(3)
    lines = [
        orjson.dumps(good[0]),
        b"{broken",
        orjson.dumps({"id": "no-text", "body": "x"}),
        orjson.dumps({"id": "empty", "text": ""}),
        orjson.dumps({"id": "short", "text": random_text("short", 15)}),
        orjson.dumps({"id": "one", "text": "5"}),
        b'{"text": "\xff"}',
        orjson.dumps({"id": "letters", "text": "not numbers"}),
        *map(orjson.dumps, good[1:]),
    ]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    summary = run(tmp_path / "in.jsonl", tmp_path / "out")
    got = {row["id"]: row for row in rows(tmp_path / "out")}
    assert len(got) == summary.num_documents == len(lines) == sum(summary.counts.values())
    assert summary.counts == {"failed": 4, "ok": 3, "too_short": 3}
    assert all(row["score"] is None and row["reason"] for row in got.values() if row["status"] != "ok")
    assert got["short"]["reason"] == "15 tokens; needed 16 (2 segments of 8)"
    assert got["letters"]["reason"].startswith("tokens: ValueError: invalid literal")
    assert "no field 'text'" in got["no-text"]["reason"]
    alone = run_one(tmp_path, good[1])
    assert got["doc-001"]["score"] == alone["score"]


def run_one(tmp_path, record, **options):
    """The record scored with no other document about."""
    write_jsonl(tmp_path / "one.jsonl", [record])
    run(tmp_path / "one.jsonl", tmp_path / "one", **options)
    return rows(tmp_path / "one")[0]


@pytest.mark.parametrize("name", ["release", "paper", "strength", "coherence"])
def test_a_score_does_not_depend_on_the_neighbours(corpus, tmp_path, name):
    scorer = make_scorer(name, pairs=40, options={"max_segments": 16})
    run(corpus, tmp_path / "out", scorer=scorer)
    together = rows(tmp_path / "out")[7]
    alone = run_one(tmp_path, records(10)[7], scorer=scorer)
    places = ("source", "file", "row")
    assert {k: v for k, v in together.items() if k not in places} == {
        k: v for k, v in alone.items() if k not in places
    }
    assert together["score"] != 0
    assert together["score_se"] > 0


def test_workers_resume_and_repair_give_the_same_bytes(corpus, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    run(corpus, one)
    summary = run(corpus, two, num_workers=2)
    expected = parts(one)
    assert len(expected) == 3
    assert parts(two) == expected
    assert summary.num_reused == 0

    names = sorted(expected)
    (two / "parts" / names[0]).unlink()
    torn = two / "parts" / names[1]
    torn.write_bytes(torn.read_bytes()[:-20])
    summary = run(corpus, two)
    assert summary.num_reused == 1
    assert parts(two) == expected

    flipped = bytearray(expected[names[2]])
    flipped[100] ^= 0xFF  # inside a page: the footer still reads
    (two / "parts" / names[2]).write_bytes(flipped)
    assert run(corpus, two).num_reused == 2
    assert parts(two) == expected
    reader = CacheReader()
    assert run(corpus, two, reader=lambda: reader).num_reused == 3
    assert reader.alone_sizes == []


def test_a_kill_between_write_and_rename_leaves_nothing_half_done(corpus, tmp_path, monkeypatch):
    run(corpus, tmp_path / "whole")
    real, seen = Path.replace, []

    def die_on_the_second(self, target):
        seen.extend([target] if target.suffix == ".parquet" else [])
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", die_on_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "out")
    monkeypatch.undo()
    assert len(parts(tmp_path / "out")) == 1
    assert not (tmp_path / "out/record.json").exists()
    # What a kill -9 leaves: a temporary file of a process that is gone.
    leftovers = [
        tmp_path / f"out/parts/.0123456789abcdef.parquet.{machine}-999999999-1.tmp"
        for machine in (machine_tag(), "00000000")
    ]
    for leftover in leftovers:
        leftover.write_bytes(b"half a part")
    assert run(corpus, tmp_path / "out").num_reused == 1
    # That of another machine may be in the making.
    assert [leftover.exists() for leftover in leftovers] == [False, True]
    leftovers[1].unlink()
    assert parts(tmp_path / "out") == parts(tmp_path / "whole")


def test_what_shapes_a_result_changes_its_name_and_what_does_not_does_not(corpus, tmp_path):
    def names(out, **options):
        run(corpus, tmp_path / out, **options)
        return set(parts(tmp_path / out))

    base = names("a")
    assert names("b", settings=replace(SETTINGS, batch_segments=3, batch_pairs=5)) == base
    assert not names("c", settings=replace(SETTINGS, seed=1)) & base
    assert not names("d", settings=replace(SETTINGS, keep_pairs=True)) & base
    assert not names("e", scorer=make_scorer("paper", pairs=41, options={"max_segments": 16})) & base
    assert not names("f", scorer=make_scorer("release", pairs=40, options={"max_segments": 16})) & base
    # Other settings in a folder that is used already: refused; overwritten, both sets stay, the record names its own.
    with pytest.raises(InputError, match=r"settings\.seed"):
        run(corpus, tmp_path / "a", settings=replace(SETTINGS, seed=1))
    assert read_record(tmp_path / "a")["num_other_parts"] == 0
    summary = run(corpus, str(tmp_path / "a"), settings=replace(SETTINGS, seed=1), overwrite=True)
    record = read_record(tmp_path / "a")
    assert (len(record["parts"]), record["num_other_parts"], summary.num_documents) == (3, 3, 10)


def poisoned(tmp_path):
    docs = records(6)
    docs[2]["text"] += f" {POISON}" * 12
    write_jsonl(tmp_path / "poison.jsonl", docs)
    return tmp_path / "poison.jsonl"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raise", "reader: ValueError: a token that this model cannot read"),
        ("nan", "values are not finite (NaN or infinite)"),
    ],
)
def test_a_poison_document_fails_alone(tmp_path, fault, reason):
    path = poisoned(tmp_path)
    settings = replace(SETTINGS, rows_per_unit=6)
    # All segments are read, so that the poison at the end is among them.
    all_read = make_scorer("paper", pairs=40, options={"max_segments": 64})
    run(path, tmp_path / "good", settings=settings, scorer=all_read)
    summary = run(path, tmp_path / "bad", reader=FaultyReader(fault), settings=settings, scorer=all_read)
    good, bad = rows(tmp_path / "good"), rows(tmp_path / "bad")
    assert bad[2]["status"] == "failed"
    assert reason in bad[2]["reason"]
    assert bad[2]["score"] is None
    assert [row for n, row in enumerate(bad) if n != 2] == [row for n, row in enumerate(good) if n != 2]
    assert summary.counts == {"failed": 1, "ok": 5}


@pytest.mark.parametrize("limit", [1, 3])
def test_out_of_memory_halves_the_batch_and_changes_nothing_else(corpus, tmp_path, limit):
    run(corpus, tmp_path / "large")
    reader = SmallMemoryReader(limit)
    run(corpus, tmp_path / "small", reader=reader)
    assert parts(tmp_path / "small") == parts(tmp_path / "large")
    assert read_record(tmp_path / "small")["smallest_batch_segments"] <= limit
    assert max(reader.alone_sizes) <= limit
    assert read_record(tmp_path / "large")["smallest_batch_segments"] is None


def test_a_reader_that_fails_on_everything_fails_the_units_and_a_rerun_does_them(corpus, tmp_path):
    for reader, words in ((BrokenReader(), "device lost"), (SmallMemoryReader(0), "out of memory")):
        summary = run(corpus, tmp_path / "out", reader=reader)
        assert not summary.complete
        assert len(summary.failed_units) == 3
        assert words in summary.failed_units[0]["error"]
        assert parts(tmp_path / "out") == {}
        assert summary.num_documents == 0
    assert not read_record(tmp_path / "out")["complete"]
    assert run(corpus, tmp_path / "out").complete
    assert read_record(tmp_path / "out")["complete"]


@pytest.mark.parametrize("rows_per_unit", [1, 3])
def test_a_worker_that_dies_takes_only_its_document_along(tmp_path, rows_per_unit):
    path = poisoned(tmp_path)
    settings = replace(SETTINGS, rows_per_unit=rows_per_unit)
    all_read = make_scorer("paper", pairs=40, options={"max_segments": 64})
    summary = run(
        path,
        tmp_path / "out",
        reader=make_faulty("die"),
        settings=settings,
        scorer=all_read,
        num_workers=2,
    )
    assert summary.complete
    assert summary.counts == {"failed": 1, "ok": 5}
    bad = rows(tmp_path / "out")
    assert "the worker process died" in bad[2]["reason"]
    run(path, tmp_path / "good", settings=settings, scorer=all_read)
    good = rows(tmp_path / "good")
    assert [row for n, row in enumerate(bad) if n != 2] == [row for n, row in enumerate(good) if n != 2]


def test_each_segment_is_read_alone_once_in_batches_that_fill_across_documents(corpus, tmp_path):
    reader = CacheReader()
    run(corpus, tmp_path / "out", reader=reader, settings=replace(SETTINGS, rows_per_unit=100))
    assert sum(reader.alone_sizes) == sum(min(row["num_segments"], 16) for row in rows(tmp_path / "out"))
    assert sum(reader.given_sizes) == 400
    # 4 blocks of 16 make a group; documents have 15 or 16 segments, so no call is much smaller than a block.
    assert len(reader.alone_sizes) <= 12
    assert max(reader.alone_sizes) == 16
    assert max(reader.given_sizes) <= 32


def test_a_planted_dependency_raises_the_score(tmp_path):
    # Twice the same rare words against rare words once each; everything else is equal.
    body = random_text("body", 104, vocab=40)
    first, other = (" ".join(map(str, range(start, start + 8))) for start in (40, 50))
    plain, planted = ({"id": last, "text": f"{first} {body} {last}"} for last in (other, first))
    write_jsonl(tmp_path / "in.jsonl", [plain, planted])
    for name in ("strength", "paper", "release"):
        run(tmp_path / "in.jsonl", tmp_path / name, scorer=make_scorer(name, pairs=None))
        without, with_plant = rows(tmp_path / name)
        assert with_plant["score"] > without["score"]
        assert with_plant["strength_max_mean"] > without["strength_max_mean"]


def test_kept_pairs_are_what_the_statistics_rest_on(corpus, tmp_path):
    run(corpus, tmp_path / "out", settings=replace(SETTINGS, keep_pairs=True))
    for row in rows(tmp_path / "out"):
        pairs = row["pairs"]
        assert len(pairs) == 40
        assert all(0 <= pair["j"] < pair["i"] < row["num_segments"] for pair in pairs)
        alone = np.exp([pair["nll_alone"] for pair in pairs])
        given = np.exp([pair["nll_given"] for pair in pairs])
        assert np.mean((alone - given) / alone) == pytest.approx(row["strength_mean"], rel=1e-5)
    assert (
        max(pair["i"] for row in rows(tmp_path / "out") for pair in row["pairs"]) > 16
    )  # places, not row numbers


def test_gzip_needs_no_reader(corpus, tmp_path):
    score(corpus, tmp_path / "out", scorer=make_scorer("gzip"), settings=SETTINGS)
    for row in rows(tmp_path / "out"):
        assert row["score"] == 1 - row["gzip_ratio"]
        assert row["num_segments"] is row["num_pairs"] is row["repetition"] is None
        assert row["num_tokens"] == row["num_bytes"] // 4
    with pytest.raises(ConfigError, match="reads a model"):
        score(corpus, tmp_path / "out", scorer=make_scorer("paper"))


class ForeignScorer(StrengthScorer):
    """Reads the last segment after each foreign one; scores the mean token of the foreign segments."""

    name = "foreign-test"
    num_foreign = 5

    def requests(self, doc, rng):
        count = len(doc.foreign)
        assert doc.document.text == ""
        targets = np.full(count, doc.num_segments - 1, dtype=np.int32)
        sources = np.arange(doc.num_segments, doc.num_segments + count, dtype=np.int32)
        return [Pairs(doc.segments, targets, sources)]

    def finish(self, doc, readings):
        ((alone, given),) = ((read.alone, read.given) for read in readings)
        assert len(alone) == doc.num_segments + len(doc.foreign)
        assert len(given) == len(doc.foreign)
        own = set(map(bytes, doc.tokens))
        assert not own & set(map(bytes, doc.foreign))
        return DocumentScore(score=float(doc.foreign.mean()) if len(doc.foreign) else -1.0, num_pairs=0)


def test_segments_of_other_documents_come_from_the_unit_and_are_drawn_per_document(tmp_path):
    docs = records(5)
    docs[4] = docs[3] | {"id": "copy of doc 3"}
    write_jsonl(tmp_path / "in.jsonl", docs)
    scorer = ForeignScorer(options={"max_segments": 64})
    settings = replace(SETTINGS, keep_pairs=True, rows_per_unit=5)
    run(tmp_path / "in.jsonl", tmp_path / "out", scorer=scorer, settings=settings)
    got = rows(tmp_path / "out")
    assert [row["reason"] for row in got] == [""] * 5
    assert len({row["score"] for row in got}) == 5
    assert all(row["pairs"] == [] for row in got)  # a foreign source has no place in the document
    write_jsonl(tmp_path / "two.jsonl", [docs[3], docs[4]])
    run(tmp_path / "two.jsonl", tmp_path / "two", scorer=scorer, settings=settings)
    assert [row["score"] for row in rows(tmp_path / "two")] == [-1.0, -1.0]  # nobody but a copy: no foreign


class SillyScorer(StrengthScorer):
    """Gives what no scorer may give."""

    name = "silly"

    def finish(self, doc, readings):
        return DocumentScore(score=float("nan"))


class LostScorer(StrengthScorer):
    """Asks for a pair that is not there."""

    name = "lost"

    def requests(self, doc, rng):
        return [Pairs(doc.tokens, np.array([doc.num_segments]), np.array([0]))]


class SecretiveScorer(StrengthScorer):
    """Asks for what it has not announced."""

    name = "secretive"

    def requests(self, doc, rng):
        return [Segments(doc.tokens)]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (SillyScorer, "gave score nan"),
        (LostScorer, "requests: ConfigError: pairs name segments"),
        (SecretiveScorer, "type Segments; expected one of those in its `asks`: Pairs"),
    ],
)
def test_a_wrong_scorer_gives_reasons_and_no_scores(corpus, tmp_path, kind, reason):
    run(corpus, tmp_path / "out", scorer=kind(options={"max_segments": 16}))
    assert all(row["status"] == "failed" and reason in row["reason"] for row in rows(tmp_path / "out"))


def test_ids_that_occur_twice_are_counted_and_kept(tmp_path):
    docs = records(6)
    docs[5]["id"] = docs[0]["id"]
    write_jsonl(tmp_path / "in.jsonl", docs)
    summary = run(tmp_path / "in.jsonl", tmp_path / "out")
    assert summary.num_duplicate_ids == 1
    assert summary.num_documents == 6
    duplicates = read_record(tmp_path / "out")["duplicates"]
    assert duplicates["first"] == [{"id": "doc-000", "places": ["in.jsonl#0", "in.jsonl#5"]}]
    assert duplicates["num_rows"] == 1


def test_an_input_that_changes_under_the_run_fails_its_unit(corpus, tmp_path):
    class Meddler(CacheReader):
        def encode(self, texts):
            corpus.write_bytes(corpus.read_bytes().replace(b"doc-005", b"doc-xxx") + b'{"text": "1 2 3"}\n')
            return super().encode(texts)

    summary = run(corpus, tmp_path / "out", reader=Meddler())
    # The second unit is another one now; to the third a line was added after it had been planned.
    assert [unit["unit"]["start"] for unit in summary.failed_units] == [4]
    assert summary.num_documents in (6, 7)
    assert "changed since it was planned" in summary.failed_units[0]["error"]


class Passing(CacheReader):
    """Can be found here, and not by a worker."""


def test_a_reader_that_cannot_be_made_stops_the_run_with_a_message(corpus, tmp_path, monkeypatch):
    for workers in (1, 2):
        with pytest.raises(ModelError, match="could not be made: OSError: no such model"):
            run(corpus, tmp_path / "out", reader=make_nothing, num_workers=workers)
    with pytest.raises(ModelError, match="expected 'another'"):
        score(
            corpus,
            tmp_path / "out",
            scorer=make_scorer("paper"),
            make_reader=make_reader,
            reader_fingerprint="another",
        )
    with pytest.raises(ConfigError, match="cannot be sent to another process"):
        run(corpus, tmp_path / "out", reader=lambda: CacheReader(), num_workers=2)
    monkeypatch.setattr(mining_fakes, "Passing", Passing, raising=False)
    monkeypatch.setattr(Passing, "__module__", "mining_fakes")
    with pytest.raises(ConfigError, match="a worker process cannot load"):
        run(corpus, tmp_path / "out", reader=Passing, num_workers=2)
    with pytest.raises(ConfigError, match="num_workers is 0"):
        run(corpus, tmp_path / "out", num_workers=0)


def test_folders_that_cannot_be_used_are_refused(corpus, tmp_path):
    with pytest.raises(InputError, match="lies inside the input folder"):
        run(tmp_path, tmp_path / "scores")
    with pytest.raises(InputError, match="is a file"):
        run(corpus, corpus)
    with pytest.raises(InputError, match="does not exist"):
        run(tmp_path / "nothing.jsonl", tmp_path / "out")


def test_mining_loads_no_torch():
    code = (
        "import sys, longlode.mining; sys.exit(not sys.modules.keys().isdisjoint(('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
