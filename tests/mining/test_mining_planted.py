"""The order contrast against planted truth: number, distance, repetition. `python -m benchmarks.planted` in small."""

import random

import numpy as np
import pytest

from longlode.mining.coherence.features import spans
from longlode.mining.scorers.order import order_score
from longlode.synthetic.planted import planted_document

NUM_WORDS = 6000
NEAR, SPAN = spans(NUM_WORDS)


def mean_score(num_planted, **options):
    """Over the same six backgrounds each time, so that what differs is what was planted."""
    scores = []
    for seed in range(6):
        text = planted_document(random.Random(seed), num_words=NUM_WORDS, num_planted=num_planted, **options)
        scores.append(order_score(np.unique(text.split(), return_inverse=True)[1])[0])
    return np.mean(scores)


@pytest.fixture(scope="module")
def nothing():
    return mean_score(0)


def test_nothing_planted_scores_nothing(nothing):
    assert (NEAR, SPAN) == (128, 600)
    assert abs(nothing) < 0.03


@pytest.mark.parametrize("distance", [200, 400, 600])
def test_it_rises_with_the_number_planted_inside_the_window(nothing, distance):
    scores = [nothing, *(mean_score(number, distance=distance) for number in (16, 64))]
    assert scores[0] + 0.005 < scores[1] < scores[2] - 0.03


@pytest.mark.parametrize("distance", [60, 1000, 2000])
def test_it_does_not_rise_in_the_near_context_or_beyond_the_window(nothing, distance):
    assert mean_score(64, distance=distance) < nothing + 0.005


def test_it_rises_with_the_number_of_callbacks(nothing):
    one, four = (mean_score(64, distance=300, num_uses=uses) for uses in (1, 4))
    assert nothing < one < four - 0.05


def test_it_does_not_rise_with_repetition(nothing):
    for planted in (0, 64):
        plain, repeated = (mean_score(planted, distance=300, repeated_share=share) for share in (0.0, 0.6))
        assert repeated < plain + 0.03
