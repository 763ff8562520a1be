"""Announced words: their parts add up to the score, and the places shown are what they are said to be."""

import numpy as np
import pytest

from longlode.mining.coherence.announcements import announcements
from longlode.mining.coherence.features import spans
from longlode.mining.coherence.order import information, order_contrast
from longlode.mining.scorers.order import order_score

NAME = 900


@pytest.fixture
def tokens():
    """Common words, and one rare name that comes back 600 tokens after its first use, three times."""
    tokens = np.random.default_rng(0).integers(0, 60, 40_000)
    for start in (10_000, 20_000, 30_000):
        tokens[[start, start + 600]] = NAME
    return tokens


def test_parts_add_up_to_the_score(tokens):
    near, span = spans(len(tokens))
    found = announcements(tokens, near=near, span=span, top=1000)
    result = order_contrast(tokens, near=near, span=span)
    assert all(one.contribution_nats > 0 for one in found)
    kept = {one.token for one in found}
    weights = information(tokens) * result.contrast
    rest = weights[result.counted & ~np.isin(tokens, list(kept))].sum() / result.counted.sum()
    assert sum(one.contribution_nats for one in found) + rest == pytest.approx(
        order_score(tokens)[0], rel=1e-9
    )
    assert rest <= 0


def test_a_name_that_comes_back_is_found_with_its_places(tokens):
    (best,) = announcements(tokens, near=128, span=800, top=1)
    assert best.token == NAME
    assert (best.num_uses, best.num_announced) == (6, 3)
    assert best.used_at - best.announced_at == 600
    assert tokens[best.used_at] == tokens[best.announced_at] == NAME
    assert 0 < best.expected < 0.5


def test_too_far_or_too_near_is_no_announcement(tokens):
    for near, span in ((128, 400), (700, 800)):
        assert NAME not in {one.token for one in announcements(tokens, near=near, span=span, top=1000)}


def test_nothing_counted_gives_nothing():
    assert announcements(np.arange(10), near=3, span=5, top=5) == []
