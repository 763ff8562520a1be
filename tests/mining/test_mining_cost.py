"""What a score costs and how sure it is: no pairs, no model; the error of a score made of pairs."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from mining_fakes import CacheReader, records

from longlode.core.errors import ConfigError
from longlode.core.records import write_jsonl
from longlode.mining import ScoreSettings, make_scorer, score
from longlode.mining.coherence.uncertainty import mean_error, sum_error
from longlode.mining.scorers.pairwise import PairwiseScorer


class Silent(CacheReader):
    """Gives tokens and refuses to read."""

    def alone(self, segments):
        raise AssertionError("no pass of the model is needed")

    given = alone


def scored(tmp_path, name, reader, **options):
    write_jsonl(tmp_path / "in.jsonl", records(3, num_tokens=400))
    summary = score(
        tmp_path / "in.jsonl",
        tmp_path / name,
        scorer=make_scorer("coherence", **options),
        make_reader=lambda: reader,
        reader_fingerprint=reader.fingerprint,
        settings=ScoreSettings(segment=8),
    )
    return summary, pq.read_table(next((tmp_path / name / "parts").iterdir())).to_pylist()


def test_the_default_without_pairs_reads_nothing_and_scores_the_same(tmp_path):
    summary, without = scored(tmp_path, "without", Silent(), pairs=0)
    _, with_pairs = scored(tmp_path, "with", CacheReader(), pairs=20)
    assert summary.counts == {"ok": 3}
    assert summary.cost["tokens_alone"] == summary.cost["tokens_given"] == 0
    assert summary.cost["document_tokens"] == sum(row["num_tokens"] for row in without) > 0
    of_pairs = ("strength_mean", "strength_max_mean", "gain_nats", "specificity_mean")
    for one, other in zip(without, with_pairs, strict=True):
        assert one["num_pairs"] == 0 < other["num_pairs"]
        assert all(one[name] is None and other[name] is not None for name in of_pairs)
        same = ("score", "score_se", "num_tokens", "repetition", "gzip_ratio", "status")
        assert [one[name] for name in same] == [other[name] for name in same]


@pytest.mark.parametrize("name", ["paper", "release", "strength"])
def test_a_score_made_of_pairs_needs_some(name):
    with pytest.raises(ConfigError, match=r"pairs is 0; expected at least 1 \(the score of"):
        make_scorer(name, pairs=0)


def leave_out(targets, values, statistic):
    """The jackknife by its definition: every target left out in turn."""
    kept = np.array([statistic(values[targets != t]) for t in np.unique(targets)])
    number = len(kept)
    return np.sqrt((number - 1) / number * ((kept - kept.mean()) ** 2).sum())


def test_errors_are_those_of_leaving_out_one_target_at_a_time():
    rng = np.random.default_rng(0)
    targets = rng.integers(1, 12, 60)
    values = rng.normal(1.0, 0.5, 60) + 0.1 * targets
    assert mean_error(targets, values) == pytest.approx(leave_out(targets, values, np.mean))
    # A sum over one target fewer is made as large as the whole, so that the sums can be compared.
    number = len(np.unique(targets))
    scaled = leave_out(targets, values, lambda rest: rest.sum() * number / (number - 1))
    assert sum_error(targets, values) == pytest.approx(scaled)
    assert mean_error(np.full(5, 3), np.ones(5)) is None
    assert sum_error(np.full(5, 3), np.ones(5)) is None


def test_errors_are_as_large_as_the_spread_over_documents():
    rng = np.random.default_rng(1)
    means, sums, errors, sum_errors = [], [], [], []
    for _ in range(400):
        rows = rng.normal(0.0, 1.0, 30)
        targets = np.repeat(np.arange(30), 8)
        values = 1.0 + rows[targets] + rng.normal(0.0, 1.0, 240)
        means.append(values.mean())
        sums.append(values.sum())
        errors.append(mean_error(targets, values))
        sum_errors.append(sum_error(targets, values))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)
    assert np.mean(sum_errors) == pytest.approx(np.std(sums), rel=0.15)
    # Pairs of one target taken for independent evidence would look more than twice as sure.
    naive = np.std(values) / np.sqrt(len(values))
    assert np.mean(errors) > 2 * naive


def test_segments_in_no_pair_are_not_read(tmp_path):
    summary, _ = scored(tmp_path, "few", CacheReader(), pairs=20)
    in_pairs = 0
    for row in pairs_of(tmp_path, "kept"):
        assert len(row["pairs"]) == row["num_pairs"]
        in_pairs += len({place for pair in row["pairs"] for place in (pair["i"], pair["j"])})
    assert summary.cost["tokens_alone"] == 8 * in_pairs < 8 * 3 * 50


def pairs_of(tmp_path, name):
    score(
        tmp_path / "in.jsonl",
        tmp_path / name,
        scorer=make_scorer("coherence", pairs=20),
        make_reader=CacheReader,
        reader_fingerprint=CacheReader.fingerprint,
        settings=ScoreSettings(segment=8, keep_pairs=True),
    )
    return pq.read_table(next((tmp_path / name / "parts").iterdir())).to_pylist()


@pytest.mark.parametrize("name", ["coherence", "paper", "strength"])
def test_reading_the_others_too_changes_nothing(tmp_path, name, monkeypatch):
    found = []
    asked = PairwiseScorer.requests
    for unpaired in (False, True):
        monkeypatch.setattr(
            PairwiseScorer,
            "requests",
            lambda self, doc, rng, unpaired=unpaired: [
                replace(one, unpaired=unpaired) for one in asked(self, doc, rng)
            ],
        )
        write_jsonl(tmp_path / "in.jsonl", records(3, num_tokens=400))
        out = tmp_path / f"{unpaired}"
        summary = score(
            tmp_path / "in.jsonl",
            out,
            scorer=make_scorer(name, pairs=9),
            make_reader=CacheReader,
            reader_fingerprint=CacheReader.fingerprint,
            settings=ScoreSettings(segment=8),
        )
        rows = pq.read_table(next((out / "parts").iterdir())).to_pylist()
        found.append((rows, summary.cost["tokens_alone"]))
    assert found[0][0] == found[1][0]
    assert found[0][1] < found[1][1]
