"""Words: the same for prose, identifiers and scripts without spaces."""

import pytest

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
