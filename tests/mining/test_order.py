"""The order contrast against its definition, token by token, and the laws that make it a measure of order."""

import numpy as np
import pytest

from longlode.mining.coherence.order import information, mean_and_error, order_contrast, stable_order


def by_definition(tokens, near, span):
    n = len(tokens)
    contrast, counted = np.zeros(n), np.zeros(n, dtype=bool)
    for p, token in enumerate(tokens):
        starts = [s for s in range(n - span + 1) if s + span <= p - near - span or s >= p + 1 + near]
        counted[p] = p >= near + span and len(starts) >= span
        if not counted[p] or token in tokens[max(0, p - near) : p]:
            continue
        hit = token in tokens[p - near - span : p - near]
        contrast[p] = hit - np.mean([token in tokens[s : s + span] for s in starts])
    return contrast, counted


@pytest.mark.parametrize(
    ("n", "near", "span"), [(200, 5, 20), (97, 3, 10), (50, 10, 20), (61, 0, 7), (12, 2, 3)]
)
def test_equals_the_definition(n, near, span):
    tokens = list(np.random.default_rng(n).integers(0, 30, n))
    contrast, counted = by_definition(tokens, near, span)
    got = order_contrast(np.array(tokens), near=near, span=span)
    np.testing.assert_array_equal(got.counted, counted)
    np.testing.assert_allclose(got.contrast, contrast, atol=1e-12)


def test_off_by_one_near_context_is_rejected():
    tokens = list(np.random.default_rng(7).integers(0, 30, 200))
    wrong, _ = by_definition(tokens, 6, 20)
    assert not np.allclose(order_contrast(np.array(tokens), near=5, span=20).contrast, wrong)


@pytest.mark.parametrize("most", [1, 300, 1 << 16, (1 << 16) + 1, 1 << 31, 1 << 40])
def test_stable_order_is_the_stable_argsort(most):
    rng = np.random.default_rng(0)
    kinds = rng.choice(rng.integers(0, most, 50), 4000)
    kinds[0] = most - 1
    np.testing.assert_array_equal(stable_order(kinds), np.argsort(kinds, kind="stable"))
    np.testing.assert_array_equal(stable_order(-kinds), np.argsort(-kinds, kind="stable"))
    assert len(stable_order(kinds[:0])) == 0


def test_information_is_that_of_the_unigram_frequencies():
    np.testing.assert_allclose(information(np.array([7, 3, 7, 7])), -np.log([0.75, 0.25, 0.75, 0.75]))


def drifting(rng, num_topics=40, tokens_per_topic=300):
    """Topics follow each other; each has its own words beside common ones."""
    parts = [
        np.where(
            rng.random(tokens_per_topic) < 0.3,
            rng.integers(100 + 20 * t, 120 + 20 * t, tokens_per_topic),
            rng.integers(0, 100, tokens_per_topic),
        )
        for t in range(num_topics)
    ]
    return np.concatenate(parts)


def mean_contrast(tokens):
    got = order_contrast(tokens, near=16, span=100)
    return (got.contrast * information(tokens))[got.counted].mean()


def test_shuffling_removes_it_and_repetition_does_not_make_it():
    rng = np.random.default_rng(3)
    coherent = drifting(rng)
    shuffled = rng.permutation(coherent.reshape(-1, 20)).reshape(-1)
    lines = rng.integers(0, 300, (40, 10))
    log = lines[rng.integers(0, 40, 6000)].reshape(-1)
    assert mean_contrast(coherent) > 0.1
    assert abs(mean_contrast(shuffled)) < 0.03
    assert abs(mean_contrast(log)) < 0.05
    assert (
        mean_contrast(np.tile(rng.integers(0, 50, 120), 100)) < 0.01
    )  # phase-locked repeats may fall below 0


def test_token_numbers_do_not_matter():
    rng = np.random.default_rng(5)
    tokens = drifting(rng)
    renamed = rng.permutation(5000)[tokens]
    np.testing.assert_allclose(mean_contrast(tokens), mean_contrast(renamed), rtol=1e-12)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_too_short_counts_nothing(n):
    got = order_contrast(np.arange(n), near=2, span=4)
    assert got.contrast.shape == (n,)
    assert not got.counted.any()


def drifting_error(tokens, near=16, span=100):
    got = order_contrast(tokens, near=near, span=span)
    values = got.contrast * information(tokens)
    return values, got.counted, *mean_and_error(values, got.counted, span)


def test_the_standard_error_is_the_spread_over_documents_made_alike_and_of_a_block_bootstrap():
    documents = [drifting_error(drifting(np.random.default_rng(seed))) for seed in range(40)]
    values, counted, mean, error = documents[0]
    assert mean == values[counted].mean()
    spread = np.std([document[2] for document in documents], ddof=1)
    assert np.mean([document[3] for document in documents]) == pytest.approx(spread, rel=0.3)
    rng, chosen = np.random.default_rng(1), values[counted]
    blocks = chosen[: len(chosen) // 100 * 100].reshape(-1, 100).mean(axis=1)
    bootstrap = np.std([rng.choice(blocks, len(blocks)).mean() for _ in range(1000)])
    assert error == pytest.approx(bootstrap, rel=0.3)


def test_the_standard_error_knows_that_neighbours_say_the_same():
    rng = np.random.default_rng(0)
    everywhere = np.ones(20_000, dtype=bool)
    drawn = [np.repeat(rng.normal(size=800), 25) for _ in range(100)]
    found = np.mean([mean_and_error(values, everywhere, 200)[1] for values in drawn])
    truth = 1 / np.sqrt(800)
    assert found == pytest.approx(truth, rel=0.1)
    assert drawn[0].std() / np.sqrt(20_000) < 0.3 * truth  # as if all tokens were independent


def test_the_standard_error_shrinks_with_length_and_needs_two_blocks():
    short, long = (drifting_error(drifting(np.random.default_rng(2), num_topics=n))[3] for n in (20, 180))
    assert long == pytest.approx(short / 3, rel=0.3)
    values = np.arange(10.0)
    counted = values >= 4
    assert mean_and_error(values, counted, 6) == (6.5, None)
    assert mean_and_error(values, counted, 3)[1] > 0
    assert mean_and_error(values, np.zeros(10, dtype=bool), 3) == (0.0, None)
