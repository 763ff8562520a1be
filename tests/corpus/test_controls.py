"""The made controls keep what they promise to keep and lose what they promise to lose."""

import itertools
import random

import pytest

from longlode.core.errors import ConfigError
from longlode.corpus import controls

TEXTS = [" ".join(f"{letter}{number}" for number in range(2000)) for letter in "abcd"]


def test_spliced_mixes_texts_without_cutting_words():
    text = controls.spliced(TEXTS, num_chars=8000, rng=random.Random(0), piece_chars=300)
    assert len(text) == 8000
    whole = {word for source in TEXTS for word in source.split()}
    words = text.split()
    assert set(words[1:-1]) <= whole
    owners = [piece.strip()[0] for piece in text.split("\n") if piece.strip()]
    assert all(a != b for a, b in itertools.pairwise(owners))
    assert set(owners) == set("abcd")


def test_spliced_needs_two_texts():
    with pytest.raises(ConfigError, match="at least 2 texts"):
        controls.spliced([TEXTS[0], "short"], num_chars=100, rng=random.Random(0))


def test_shuffled_keeps_paragraphs():
    paragraphs = [f"paragraph {n}" for n in range(50)]
    text = controls.shuffled("\n\n".join(paragraphs), rng=random.Random(1))
    assert sorted(text.split("\n\n")) == sorted(paragraphs)
    assert text.split("\n\n") != paragraphs


def test_renamed_breaks_the_thread_of_a_name():
    text = "so then Margaret went to see Edward, and Edward said to Margaret that all was well. " * 40
    out = controls.renamed(text, rng=random.Random(2), piece_chars=200)
    assert "Margaret" not in out
    assert "Edward" not in out
    assert "all was well" in out


def test_repeated_and_log_have_the_length_and_are_seeded():
    for make in (
        lambda seed: controls.repeated(TEXTS[0], num_chars=5000, rng=random.Random(seed)),
        lambda seed: controls.synthetic_log(num_chars=5000, rng=random.Random(seed)),
    ):
        assert len(make(0)) == 5000
        assert make(0) == make(0)
        assert make(0) != make(1)
