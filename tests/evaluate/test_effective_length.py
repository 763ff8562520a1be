"""Effective length: RULER's threshold on the mean of its tasks, at lengths that have all of them."""

import random

import pytest

from longlode.core.errors import InputError
from longlode.evaluate import TASKS, effective_length
from longlode.evaluate.effective_length import RULER_TASKS, THRESHOLD


def summary(scores):
    """Rows of a summary from {(task, length): score}."""
    return [
        {"task": task, "length": length, "metric": metric, "mean": score if metric == "hard" else -9.0}
        for (task, length), score in scores.items()
        for metric in ("smooth", "hard")
    ]


def test_it_is_the_longest_length_whose_mean_is_above_the_threshold():
    rng = random.Random(0)
    for _ in range(50):
        lengths = sorted(rng.sample(range(100, 9000), 5))
        scores = {(task, length): rng.uniform(0.7, 1.0) for task in RULER_TASKS for length in lengths}
        found = effective_length(summary({**scores, ("copy", 20_000): 1.0}))
        best = 0
        for length in lengths:
            total = 0.0
            for task in RULER_TASKS:
                total += scores[task, length]
            assert found.scores[length] == pytest.approx(total / 11)
            if total / 11 > 0.856:
                best = length
        assert found.tokens == best
        assert found.tasks == RULER_TASKS


def test_a_length_without_all_tasks_does_not_count():
    scores = {
        ("variable_tracking", 500): 0.9,
        ("common_words", 500): 0.9,
        ("variable_tracking", 900): 1.0,
    }
    found = effective_length(summary(scores))
    assert (found.tokens, [*found.scores]) == (500, [500])
    assert effective_length(summary(scores), tasks=["variable_tracking"]).tokens == 900
    assert effective_length(summary(scores), threshold=0.95).tokens == 0


def test_the_score_has_to_be_above_the_threshold():
    assert THRESHOLD == 0.856
    assert effective_length(summary({("common_words", 500): 0.856})).tokens == 0
    assert effective_length(summary({("common_words", 500): 0.857})).tokens == 500


def test_the_tasks_are_known_and_one_is_needed():
    assert set(RULER_TASKS) <= set(TASKS.names())
    with pytest.raises(InputError, match="niah_single_1"):
        effective_length(summary({("copy", 500): 1.0}))
