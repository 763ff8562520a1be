"""The made controls keep what they promise to keep and lose what they promise to lose."""

import itertools
import random

import pytest

from longlode.core.errors import ConfigError
from longlode.corpus import controls, generated

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


def test_repeated_varies_one_block():
    text = controls.repeated(TEXTS[0], num_chars=5000, rng=random.Random(0))
    assert len(text) == 5000
    first, second = text.split("\n\n")[:2]
    kept = sum(a == b for a, b in zip(first.split(), second.split(), strict=True))
    assert 140 <= kept < 150


@pytest.mark.parametrize("make", [generated.synthetic_log, generated.synthetic_table])
def test_generated_texts_have_the_length_and_are_seeded(make):
    texts = [make(num_chars=5000, rng=random.Random(seed)) for seed in (0, 0, 1)]
    assert {len(text) for text in texts} == {5000}
    assert texts[0] == texts[1] != texts[2]


def test_pages_share_all_but_their_snippets():
    snippets = [" ".join(f"{letter}{number}" for number in range(300)) for letter in "abcdef"]
    text = generated.boilerplate_pages(snippets, num_chars=6000, rng=random.Random(0))
    pages = text.split("\n\n\n")
    assert len(pages) > 2
    own = [set(page.split("\n")) for page in pages]
    shared = set.intersection(*own)
    assert any("cookies" in line for line in shared)
    assert all(2 * sum(map(len, shared)) > len(page) - sum(map(len, shared)) for page in pages)
    with pytest.raises(ConfigError, match="at least 1 snippet"):
        generated.boilerplate_pages([], num_chars=100, rng=random.Random(0))
