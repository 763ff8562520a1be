"""Intervals: known values, coverage, and what grouping does."""

import itertools

import numpy as np
import pytest

from longlode.evaluate.statistics import bootstrap_crossed, bootstrap_mean, holm, sign_flip_p, wilson


def test_wilson_known_values():
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    with pytest.raises(ValueError, match="no interval"):
        wilson(0, 0)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(200):
        values = rng.normal(2.0, 1.0, 60)
        mean, low, high = bootstrap_mean(values, num_resamples=400, seed=trial)
        assert low < mean < high
        inside += low < 2.0 < high
    assert 0.88 <= inside / 200 <= 0.99


def test_sign_flips_are_all_counted_where_groups_are_few():
    rng = np.random.default_rng(2)
    for _ in range(10):
        values, weights = rng.normal(0.3, 1, 9), rng.uniform(0.5, 2, 9)
        groups = rng.integers(0, 5, 9).tolist()
        names = sorted(set(groups))
        sums = [sum(w * v for v, w, g in zip(values, weights, groups, strict=True) if g == n) for n in names]
        flips = [
            abs(sum(s * one for s, one in zip(signs, sums, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(names))
        ]
        wanted = np.mean([flip >= abs(sum(sums)) - 1e-12 for flip in flips])
        assert sign_flip_p(values, weights=weights, groups=groups) == pytest.approx(wanted)
    assert sign_flip_p([1.0, 2.0], groups=["a", "a"]) is None


def test_p_values_are_uniform_where_nothing_differs_and_small_where_something_does():
    rng = np.random.default_rng(3)
    found = np.array([sign_flip_p(rng.normal(0, 1, 20), num_flips=199) for _ in range(400)])
    assert 0.02 < (found <= 0.05).mean() < 0.09
    assert 0.4 < (found <= 0.5).mean() < 0.6
    assert sign_flip_p(rng.normal(2, 1, 30)) == 1e-4


def test_holm_by_its_definition():
    rng = np.random.default_rng(4)
    p = rng.uniform(0, 0.3, 7)
    adjusted = holm(p)
    for place, value in enumerate(p):
        ranks = [sum(other < one for other in p) for one in p]
        wanted = max(min(1, (7 - ranks[k]) * p[k]) for k in range(7) if p[k] <= value)
        assert adjusted[place] == pytest.approx(wanted)
    assert holm([]) == []


def test_groups_widen_the_interval_of_repeated_values():
    values = np.repeat(np.random.default_rng(2).normal(size=20), 30)
    _, low, high = bootstrap_mean(values)
    _, group_low, group_high = bootstrap_mean(values, groups=np.repeat(np.arange(20), 30).tolist())
    assert group_high - group_low > 3 * (high - low)


def test_weights_and_too_few_groups():
    assert bootstrap_mean([1.0, 3.0], weights=[3, 1])[0] == 1.5
    assert bootstrap_mean([4.0]) == (4.0, None, None)
    assert bootstrap_mean([1.0, 2.0], groups=["x", "x"]) == (1.5, None, None)
    assert bootstrap_mean([1.0, 2.0, 5.0]) == bootstrap_mean([1.0, 2.0, 5.0])


def test_the_crossed_bootstrap_covers_where_runs_and_groups_both_vary():
    rng, covered, widths = np.random.default_rng(5), 0, []
    groups = np.repeat(np.arange(15), 2).tolist()
    for trial in range(60):
        runs, texts = rng.normal(size=(8, 1)), np.repeat(rng.normal(size=15), 2)
        values = runs + texts + 0.1 * rng.normal(size=(8, 30))
        mean, low, high = bootstrap_crossed(values, groups, num_resamples=300, seed=trial)
        assert mean == pytest.approx(np.mean([values[:, [2 * n, 2 * n + 1]].mean() for n in range(15)]))
        covered += low <= 0.0 <= high
        widths.append(high - low)
    assert covered >= 50
    _, low, high = bootstrap_mean(values.mean(0), groups=groups)
    assert high - low < 0.8 * np.mean(widths), "the runs' own variance is part of the interval"
