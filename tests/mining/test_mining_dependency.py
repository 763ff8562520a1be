"""The formulas against a naive re-implementation, in loops, of what paper and released code compute."""

import math

import numpy as np
import pytest
from mining_fakes import pair_reading

from longlode.corpus import Document
from longlode.mining import dependency, make_scorer
from longlode.mining.scorers import SegmentedDocument

SEGMENT = 9


def document(num_segments, *, num_total=None, positions=None):
    num_total = num_total or num_segments
    positions = np.arange(num_segments) if positions is None else np.asarray(positions)
    tokens = np.zeros((num_segments, SEGMENT), dtype=np.int64)
    return SegmentedDocument(
        document=Document("d", "", "s", "f", 0),
        tokens=tokens,
        positions=positions,
        num_total_segments=num_total,
        all_tokens=np.zeros(num_total * SEGMENT, dtype=np.int32),
        foreign=tokens[:0],
        repetition=0.0,
        gzip_ratio=0.5,
    )


def readings(num_segments, pairs, *, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    alone = rng.gamma(3.0, scale, (num_segments, SEGMENT - 1)).astype(np.float32)
    help_ = rng.uniform(0.5, 1.1, (len(pairs[0]), 1))
    given = (alone[pairs[0]] * help_).astype(np.float32)
    return alone, given


def drawn(scorer, doc, seed=0):
    """Targets and sources of the pairs that a scorer asks for."""
    (pairs,) = scorer.requests(doc, np.random.default_rng(seed))
    return pairs.targets, pairs.sources


def naive_perplexity(values):
    return math.exp(sum(float(value) for value in values) / len(values))


def naive_release(num_segments, pairs, alone, given, window_segments, threshold=0.1):
    """The released program's arithmetic: a table of pair perplexities with inf where nothing was read."""
    single = [naive_perplexity(row) for row in alone]
    pair = [[math.inf] * num_segments for _ in range(num_segments)]
    for p, (i, j) in enumerate(zip(*pairs, strict=True)):
        pair[i][j] = naive_perplexity(given[p])
    specificity = [0.0] * num_segments
    for i in range(num_segments):
        logits = [single[i] - pair[i][j] for j in range(i) if pair[i][j] != math.inf]
        if len(logits) == 1:
            specificity[i] = 1.0
        elif logits:
            exps = [math.exp(x - max(logits)) for x in logits]
            chances = [e / sum(exps) for e in exps]
            if 0.0 in chances:
                shifted = [c + 1e-12 for c in chances]
                chances = [c / sum(shifted) for c in shifted]
            entropy = -sum(c * math.log(c) for c in chances)
            top = math.log(len(logits))
            specificity[i] = min(max((top - entropy) / top, 0.0), 1.0)
    total = 0.0
    for i in range(num_segments):
        for j in range(i):
            strength = (single[i] - pair[i][j]) / single[i]
            if strength > threshold:
                far = min(max((i - j) / (window_segments - 1), 0.0), 1.0)
                total += (strength + far) * specificity[i]
    return total


@pytest.mark.parametrize(
    ("num_segments", "pairs", "scale"),
    [(12, None, 0.4), (40, 500, 0.4), (40, 60, 1.0), (40, 300, 2.5), (2, None, 1.0)],
)
def test_release_equals_the_naive_arithmetic(num_segments, pairs, scale):
    scorer = make_scorer("release", pairs=pairs, options={"max_segments": 64})
    doc = document(num_segments)
    read = drawn(scorer, doc, 1)
    alone, given = readings(num_segments, read, scale=scale)
    result = scorer.finish(doc, [pair_reading(read, alone, given)])
    expected = naive_release(num_segments, read, alone, given, 64)
    assert result.score == pytest.approx(expected, rel=1e-12)
    assert expected > 0
    # The broken twin: a scale of the document's own length, as in the paper, is told apart.
    assert result.score != pytest.approx(
        naive_release(num_segments, read, alone, given, num_segments + 1), rel=1e-6
    )


def test_the_release_floor_is_reached_by_the_test_above():
    # With perplexities in the thousands the softmax underflows, so that quirk R2 is really exercised.
    differences = np.array([5.0, -2000.0, 4.0])
    plain = dependency.specificity(differences)
    floored = dependency.specificity(differences, dependency.RELEASE_FLOOR)
    assert plain != floored
    assert plain == pytest.approx(floored, abs=1e-9)


def test_paper_equals_the_naive_arithmetic_with_places_of_the_whole_document():
    scorer = make_scorer("paper", pairs=30, options={"max_segments": 16})
    positions = np.sort(np.random.default_rng(3).choice(100, 16, replace=False))
    doc = document(16, num_total=100, positions=positions)
    pairs = drawn(scorer, doc, 1)
    alone, given = readings(16, pairs)
    result = scorer.finish(doc, [pair_reading(pairs, alone, given)])
    single = [naive_perplexity(row) for row in alone]
    rows = {}
    for p, (i, j) in enumerate(zip(*pairs, strict=True)):
        rows.setdefault(i, []).append((j, naive_perplexity(given[p])))
    total, strengths, best, specificities = 0.0, [], [], []
    for i, row in rows.items():
        exps = [math.exp(single[i] - given_ppl) for _, given_ppl in row]
        entropy = -sum(e / sum(exps) * math.log(e / sum(exps)) for e in exps)
        dsp = 1.0 if len(row) == 1 else (math.log(len(row)) - entropy) / math.log(len(row))
        dsts = [(single[i] - given_ppl) / single[i] for _, given_ppl in row]
        for (j, _), dst in zip(row, dsts, strict=True):
            if dst > 0.1:
                total += (dst + (positions[i] - positions[j]) / 99) * dsp
        strengths += dsts
        best.append(max(dsts))
        specificities.append(dsp)
    assert result.score == pytest.approx(total, rel=1e-12)
    assert result.strength_mean == pytest.approx(np.mean(strengths), rel=1e-12)
    assert result.strength_max_mean == pytest.approx(np.mean(best), rel=1e-12)
    assert result.specificity_mean == pytest.approx(np.mean(specificities), rel=1e-12)
    gains = [alone[i].mean(dtype=float) - given[p].mean(dtype=float) for p, i in enumerate(pairs[0])]
    assert result.gain_nats == pytest.approx(np.mean(gains), rel=1e-9)


def test_release_counts_drawn_segments_where_paper_counts_places():
    positions = [0, 50, 99]
    doc = document(3, num_total=100, positions=positions)
    alone, given = np.full((3, 8), 2.0, np.float32), np.full((1, 8), 1.0, np.float32)
    read = [pair_reading((np.array([2]), np.array([0])), alone, given)]
    strength = 1 - math.exp(-1)
    release = make_scorer("release", pairs=1, options={"max_segments": 3}).finish(doc, read)
    paper = make_scorer("paper", pairs=1, options={"max_segments": 3}).finish(doc, read)
    assert release.score == pytest.approx(strength + 2 / 2)
    assert paper.score == pytest.approx(strength + 99 / 99)
    assert make_scorer("release", pairs=1, options={"max_segments": 256}).finish(
        doc, read
    ).score == pytest.approx(strength + 2 / 255)


def test_release_scores_zero_and_says_so_when_there_are_fewer_pairs_than_asked_for():
    scorer = make_scorer("release", pairs=500)
    few, enough = document(32), document(33)  # 496 and 528 pairs
    assert list(scorer.requests(few, np.random.default_rng(0))) == []
    result = scorer.finish(few, [])
    assert (result.score, result.status, result.num_pairs) == (0.0, "ok", 0)
    assert "fewer pairs (496) than the sample size (500): the release scores 0" in result.reason
    assert len(drawn(scorer, enough)[0]) == 500
    assert len(drawn(make_scorer("release", pairs=496), few)[0]) == 496
    assert len(drawn(make_scorer("release", pairs=None), few)[0]) == 496
    assert len(drawn(make_scorer("paper", pairs=500), few)[0]) == 496


def test_specificity_at_its_edges():
    assert dependency.specificity(np.array([-3.0])) == 1.0
    assert dependency.specificity(np.full(7, 2.5)) == pytest.approx(0.0, abs=1e-12)
    assert dependency.specificity(np.array([1000.0, 0.0, 0.0])) == 1.0
    values = np.array([0.3, -1.0, 2.0, 0.1])
    one = dependency.specificity(values)
    assert 0 < one < 1
    assert dependency.specificity(values + 5) == pytest.approx(one)
    assert dependency.specificity(values[::-1]) == pytest.approx(one)
    assert dependency.specificity(values * 2) > one


def test_specificity_rows_match_row_by_row_and_leave_the_rest_nan():
    targets = np.array([3, 1, 3, 5, 5, 5])
    values = np.array([0.2, 1.0, -0.4, 1.0, 2.0, 3.0])
    rows = dependency.specificity_rows(targets, values, 6)
    assert np.isnan(rows[[0, 2, 4]]).all()
    assert rows[1] == 1.0
    assert rows[3] == dependency.specificity(np.array([0.2, -0.4]))
    assert rows[5] == dependency.specificity(np.array([1.0, 2.0, 3.0]))


def test_lds_counts_only_pairs_strictly_above_the_threshold():
    strengths = np.array([0.1, np.nextafter(0.1, 1), 0.5, -0.2])
    ones = np.ones(4)
    assert dependency.lds(strengths, ones * 0.25, ones) == pytest.approx(0.1 + 0.5 + 2 * 0.25)
    assert dependency.lds(strengths, ones * 0.25, ones, alpha=2, beta=0) == pytest.approx(1.2)
    assert dependency.lds(strengths, ones, ones, threshold=0.6) == 0.0


def test_release_lds_turns_a_nan_sum_into_zero():
    strengths, ones = np.array([0.5, 0.4]), np.ones(2)
    specificities = np.array([np.nan, 1.0])
    assert np.isnan(dependency.lds(strengths, ones, specificities))
    assert dependency.release_lds(strengths, ones, specificities) == 0.0


def test_release_distance_is_clipped():
    far = dependency.release_distance(np.array([300, 10]), np.array([0, 0]), 256)
    np.testing.assert_allclose(far, [1.0, 10 / 255])
