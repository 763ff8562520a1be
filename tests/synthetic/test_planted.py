"""Planted documents: names stand where they were planted, as often as the others, and nothing else depends."""

import itertools
import random

import pytest

from longlode.core.errors import ConfigError
from longlode.synthetic.planted import planted_document


def places(text):
    found: dict[str, list[int]] = {}
    for place, word in enumerate(text.split()):
        if word.startswith("Q"):
            found.setdefault(word, []).append(place)
    return list(found.values())


def test_names_stand_at_the_distance_and_as_often_as_the_others():
    options = {"num_words": 9000, "num_names": 20, "num_uses": 3, "distance": 300}
    planted = places(planted_document(random.Random(1), num_planted=20, **options))
    scattered = places(planted_document(random.Random(1), num_planted=0, **options))
    for found in (planted, scattered):
        assert [len(name) for name in found] == [4] * 20
    gaps = [b - a for name in planted for a, b in itertools.pairwise(name)]
    assert 265 <= min(gaps) <= max(gaps) <= 335
    loose = [b - a for name in scattered for a, b in itertools.pairwise(name)]
    assert sum(265 <= gap <= 335 for gap in loose) < 0.2 * len(loose)
    assert max(loose) > 1000


def test_repeated_lines_and_length():
    text = planted_document(random.Random(2), num_words=1207, num_planted=0, num_names=0, repeated_share=0.5)
    lines = text.split("\n")
    assert len(text.split()) == 1207
    copies = sum(lines.count(line) > 1 for line in lines)
    assert 0.35 < copies / len(lines) < 0.65


def test_the_same_seed_gives_the_same_document():
    one, two, other = (planted_document(random.Random(s), num_words=900, num_planted=3) for s in (1, 1, 2))
    assert one == two != other


def test_what_does_not_fit_is_refused():
    for options in ({"num_planted": 65}, {"num_planted": 1, "distance": 900}):
        with pytest.raises(ConfigError, match="do not fit into 900 words"):
            planted_document(random.Random(0), num_words=900, **options)
