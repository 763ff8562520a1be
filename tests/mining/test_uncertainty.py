"""The jackknife over stretches of a document, against plain masks, sums and np.quantile."""

import itertools

import numpy as np
import pytest

from longlode.mining.coherence.uncertainty import Stretches, jackknife_error, mean_error

LEVELS = np.array([0.0, 0.02, 0.1, 0.5, 0.9, 1.0])


def keeps(places, num_places, num_stretches):
    """Which values remain: all first, then without each stretch."""
    edges = np.linspace(0.0, 1.0, num_stretches + 1)
    at = np.asarray(places) / max(num_places, 1)
    return [
        np.ones(len(at), dtype=bool),
        *(~((at >= a) & (at < b)) for a, b in itertools.pairwise(edges)),
    ]


@pytest.mark.parametrize("num_places", [0, 1, 3, 9, 10, 11, 29, 333, 1000])
@pytest.mark.parametrize("num_stretches", [2, 7, 10])
def test_means_equal_those_of_what_remains(num_places, num_stretches):
    rng = np.random.default_rng(num_places)
    parts = Stretches(num_places, num_stretches)
    values = rng.normal(size=num_places)
    weights = rng.random(num_places) * (rng.random(num_places) < 0.5)
    for given in (weights, None):
        used = np.ones(num_places) if given is None else given
        rest = keeps(np.arange(num_places), num_places, num_stretches)
        expected = [np.average(values[k], weights=used[k]) if used[k].sum() > 0 else 0.0 for k in rest]
        np.testing.assert_allclose(parts.means(values, given), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("num_places", "step"), [(0, 1), (5, 2), (40, 30), (500, 7), (1000, 10), (95, 94)])
def test_quantiles_and_sparse_means_equal_those_of_what_remains(num_places, step):
    rng = np.random.default_rng(step)
    places = np.arange(step // 2, num_places, step)
    for values in (rng.random(len(places)), rng.integers(0, 3, len(places)) / 3):
        rest = keeps(places, num_places, 10)
        found = Stretches(num_places, 10).quantiles(places, values, LEVELS)
        expected = [np.quantile(values[k], LEVELS) if k.any() else np.zeros(len(LEVELS)) for k in rest]
        np.testing.assert_allclose(found.T, expected, rtol=1e-14, atol=0)
        means = Stretches(num_places, 10).means(values, None, places)
        np.testing.assert_allclose(means, [values[k].mean() if k.any() else 0.0 for k in rest], rtol=1e-12)


def test_a_stretch_that_holds_all_the_weight_leaves_nothing_and_no_rounding_error():
    weights = np.zeros(100)
    weights[31:39] = np.random.default_rng(0).random(8)
    means = Stretches(100, 10).means(np.full(100, 0.1), weights)
    assert means[4] == 0.0
    assert np.delete(means, 4) == pytest.approx(0.1)


@pytest.mark.parametrize("num_places", [*range(1, 300), 10_007, 123_456])
def test_stretches_begin_where_the_share_of_the_document_does(num_places):
    first, at = Stretches(num_places, 10).first, np.arange(num_places) / num_places
    np.testing.assert_array_equal(first, np.searchsorted(at, np.linspace(0.0, 1.0, 11)))


def test_the_error_of_a_mean_by_leaving_out_its_values_is_the_textbook_one():
    values = np.random.default_rng(0).normal(size=30)
    without = (values.sum() - values) / 29
    textbook = values.std(ddof=1) / np.sqrt(30)
    assert jackknife_error(without) == pytest.approx(textbook)
    assert mean_error(np.arange(30), values) == pytest.approx(textbook)
