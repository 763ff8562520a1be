"""Words: the same for prose, identifiers and scripts without spaces."""

import random

import numpy as np
import pytest

from longlode.corpus import words
from longlode.corpus.words import split_words, word_starts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The old man's boat.", ["the", "old", "man", "s", "boat"]),
        ("parse_HTTPHeader2(XMLNode)", ["parse", "http", "header", "2", "xml", "node"]),
        ("größer als Ärger", ["größer", "als", "ärger"]),
        ("Пётр сказал", ["пётр", "сказал"]),
        ("漢字かな x", ["漢", "字", "か", "な", "x"]),
        (" ...--- ", []),
    ],
)
def test_splits(text, expected):
    assert split_words(text) == expected


def test_starts_are_those_of_the_words():
    text = "One fooBar, two_three\n4 漢"
    starts = word_starts(text)
    assert [
        text[at : at + len(word)].lower() for at, word in zip(starts, split_words(text), strict=True)
    ] == (split_words(text))


def numbered(words):
    """The plain way: a dictionary that grows."""
    known = {}
    return [known.setdefault(word, len(known)) for word in words], list(known)


# Where rules meet: capitals in a row, letters without case, digits of other scripts, signs inside the ranges of
# kana (U+30FB, and U+3097, which is nothing), a capital whose lower case is two characters, a lone surrogate, nothing.
ALPHABET = "aabcABC11_ .-'\n\0éÉßñЖж漢字かナ・\u3097٣²Ⅷİσς\ud800\U0001f600\U00020000"


@pytest.mark.parametrize("alphabet", [ALPHABET, "abAB1_ ", "aA漢", "ab "])
def test_a_vocabulary_numbers_the_words_of_the_pattern(alphabet, monkeypatch):
    rng = random.Random(ascii(alphabet))
    vocabulary = words.Vocabulary()
    for size in (0, 1, 2, 3, 5, 10, 30, 30, 100, 1000, 5000, 40):
        for _ in range(20 if size < 100 else 2):
            monkeypatch.setattr(words, "_CHUNK_CHARACTERS", rng.choice([3, 17, 1 << 17]))
            text = "".join(rng.choices(alphabet, k=size))
            kinds, types = vocabulary.read(text)
            assert (kinds.tolist(), types) == numbered(split_words(text)), ascii(text)
            assert kinds.dtype == np.int32


def test_a_vocabulary_forgets_between_texts_and_not_inside_one(monkeypatch):
    monkeypatch.setattr(words, "_KEPT_WORDS", 50)
    vocabulary = words.Vocabulary()
    for first in range(0, 400, 40):
        text = " ".join(f"x{'y' * number}" for number in range(first, first + 80))
        kinds, types = vocabulary.read(text)
        assert (kinds.tolist(), types) == numbered(split_words(text))
        assert len(vocabulary.words) <= 130


def test_spellings_that_are_let_go_inside_a_text_keep_the_numbers_of_their_words(monkeypatch):
    monkeypatch.setattr(words, "_KEPT_WORDS", 5)
    monkeypatch.setattr(words, "_CHUNK_CHARACTERS", 20)
    text = " ".join(random.Random(3).choices([f"X{number}y" for number in range(30)], k=400))
    vocabulary = words.Vocabulary()
    kinds, types = vocabulary.read(text)
    assert (kinds.tolist(), types) == numbered(split_words(text))
    assert not vocabulary.words


def test_an_endless_word_is_read_all_the_same(monkeypatch):
    monkeypatch.setattr(words, "_CHUNK_CHARACTERS", 10)
    text = "short " + "acgt" * 100 + "AB" * 50 + " short"
    kinds, types = words.Vocabulary().read(text)
    assert (kinds.tolist(), types) == numbered(split_words(text))
    assert types[1].startswith("acgtacgt")
