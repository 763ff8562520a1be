"""Intervals: known values, coverage, and what grouping does."""

import numpy as np
import pytest

from longlode.evaluate.statistics import bootstrap_crossed, bootstrap_mean, wilson


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
