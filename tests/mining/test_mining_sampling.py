"""Draws depend on the document alone; baselines equal their definitions."""

import gzip
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from longlode.core.errors import ConfigError
from longlode.mining import ScoreSettings, make_scorer, score
from longlode.mining.baselines import far_overlap, gzip_ratio, repetition
from longlode.mining.sampling import document_rng, sample_foreign, sample_pairs, sample_rows, sample_segments
from longlode.mining.scorers import SCORERS
from longlode.mining.segments import split_segments


def test_a_documents_stream_is_a_function_of_what_it_is_keyed_by():
    def first(*key):
        return document_rng(*key).integers(0, 1 << 62, 4).tolist()

    base = (0, "id", "hash", "pairs")
    assert first(*base) == first(*base)
    others = [
        (1, *base[1:]),
        (0, "id2", *base[2:]),
        (0, "id", "hash2", "pairs"),
        (0, "id", "hash", "foreign"),
    ]
    assert len({tuple(first(*key)) for key in [base, *others]}) == 5


def test_pairs_are_distinct_ordered_and_uniform():
    rng = np.random.default_rng(0)
    counts = np.zeros((8, 8))
    for _ in range(2000):
        targets, sources = sample_pairs(8, 7, rng)
        assert len(set(zip(targets, sources, strict=True))) == 7
        assert list(zip(targets, sources, strict=True)) == sorted(zip(targets, sources, strict=True))
        counts[targets, sources] += 1
    below = counts[np.tril_indices(8, -1)]
    assert counts.sum() == below.sum()
    assert below.min() > 500 - 6 * np.sqrt(500) * 0.9
    assert below.max() < 500 + 6 * np.sqrt(500) * 0.9


@pytest.mark.parametrize("num_pairs", [None, 28, 1000])
def test_all_pairs_when_there_are_no_more(num_pairs):
    targets, sources = sample_pairs(8, num_pairs, np.random.default_rng(0))
    assert len(targets) == 28
    assert (sources < targets).all()


def test_rows_are_whole_and_within_the_budget():
    targets, sources = sample_rows(64, 100, 16, np.random.default_rng(0))
    assert len(targets) <= 100
    assert (sources < targets).all()
    assert len(set(zip(targets, sources, strict=True))) == len(targets)
    for target, count in zip(*np.unique(targets, return_counts=True), strict=True):
        assert count == min(16, target)
    assert len(sample_rows(9, None, 16, np.random.default_rng(0))[0]) == 36
    assert len(sample_rows(64, 3, 16, np.random.default_rng(0))[0]) in (1, 2, 3)


def test_segments_are_all_or_a_sorted_sample():
    np.testing.assert_array_equal(sample_segments(5, 8, np.random.default_rng(0)), np.arange(5))
    chosen = sample_segments(1000, 256, np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 256
    assert (np.diff(chosen) > 0).all()
    assert chosen.max() > 900  # of the whole document, not of its beginning


def test_segments_of_other_documents_are_spread_over_them():
    others = [np.full((50, 3), 0), np.full((1, 3), 1), np.full((2, 3), 2)]
    found = sample_foreign(others, 5, np.random.default_rng(0))
    assert sorted(found[:, 0].tolist()) == [0, 0, 1, 2, 2]
    assert len(sample_foreign(others[1:], 9, np.random.default_rng(0))) == 3
    distinct = sample_foreign([np.arange(30).reshape(10, 3)], 10, np.random.default_rng(0))
    assert len(set(distinct[:, 0].tolist())) == 10


def test_segments_drop_the_ragged_tail():
    np.testing.assert_array_equal(split_segments(np.arange(11), 4), [[0, 1, 2, 3], [4, 5, 6, 7]])
    assert split_segments(np.arange(3), 4).shape == (0, 4)
    with pytest.raises(ConfigError, match="at least 2"):
        split_segments(np.arange(3), 1)


def test_gzip_ratio_is_that_of_gzip():
    text = "the same words, the same words — " * 40
    raw = text.encode()
    assert gzip_ratio(text) == len(gzip.compress(raw, compresslevel=6)) / len(raw)
    assert gzip_ratio("") is None


def test_repetition_equals_its_definition():
    segments = np.random.default_rng(0).integers(0, 3, (6, 20))
    segments[4] = segments[1]
    seen, again, total = set(), 0, 0
    for row in segments:
        for start in range(20 - 8 + 1):
            window = tuple(row[start : start + 8])
            again += window in seen
            seen.add(window)
            total += 1
    assert repetition(segments) == pytest.approx(again / total)
    assert again > 0
    assert repetition(np.arange(60).reshape(3, 20)) == 0.0
    assert repetition(np.zeros((3, 5), dtype=np.int32)) == 0.0


def test_far_overlap_equals_its_definition():
    segments = np.random.default_rng(1).integers(0, 4, (9, 12))
    hits = []
    for i in range(3, 9):
        for start in range(12 - 4 + 1):
            window = tuple(segments[i, start : start + 4])
            hits.append(
                any(
                    window == tuple(segments[j, other : other + 4])
                    for j in range(i - 3 + 1)
                    for other in range(12 - 4 + 1)
                )
            )
    assert far_overlap(segments, 3) == pytest.approx(np.mean(hits))
    assert 0 < np.mean(hits) < 1
    assert far_overlap(segments, 9) == 0.0


def test_the_registry_knows_its_scorers_and_refuses_others():
    assert set(SCORERS) == {
        *("coherence", "order", "paper", "release", "strength"),
        *("context_gain", "attention_mass", "overlap", "gzip", "profile"),
    }
    assert all(SCORERS.get(name).name == name for name in SCORERS)
    with pytest.raises(
        ConfigError,
        match=r"no scorer 'lds'.*coherence, context_gain, gzip, order, overlap, paper, profile, release, strength",
    ):
        make_scorer("lds")
    with pytest.raises(ConfigError, match="pairs is 0"):
        make_scorer("paper", pairs=0)
    with pytest.raises(ConfigError, match="max_segments is 1"):
        make_scorer("paper", options={"max_segments": 1})


OUTSIDE = """
from longlode.mining import DocumentScore, Scorer
from longlode.mining.requests import Words


class Longest(Scorer):
    name = "longest"
    min_segments = 0
    asks = (Words,)

    def text_requests(self, text):
        return [Words(text)]

    def finish(self, doc, readings):
        return DocumentScore(score=float(max(map(len, doc.of_text[0].kept))))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_scorer_of_another_package_by_its_address(tmp_path, monkeypatch, workers):
    (tmp_path / "outside_scorers.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    for name in ("a", "abcdef"):
        (tmp_path / f"{name}.txt").write_text(f"it is {name}")
    out = tmp_path / "scores"
    settings = ScoreSettings(rows_per_unit=1)
    scorer = make_scorer("outside_scorers:Longest")
    summary = score(f"{tmp_path}/*.txt", out, scorer=scorer, settings=settings, num_workers=workers)
    assert summary.counts == {"ok": 2}
    found = [row for path in (out / "parts").iterdir() for row in pq.read_table(path).to_pylist()]
    assert {row["id"]: row["score"] for row in found} == {"a.txt": 2.0, "abcdef.txt": 6.0}
