"""The made controls keep what they promise to keep and lose what they promise to lose."""

import itertools
import random
import re
import textwrap

import pytest

from longlode.core.errors import ConfigError
from longlode.synthetic import controls, generated

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


def test_blocks_find_paragraphs_however_they_are_marked():
    rng = random.Random(3)
    sentences = [" ".join(f"word{rng.randrange(500)}" for _ in range(12)) + "." for _ in range(200)]
    paragraphs = [" ".join(sentences[n : n + 5]) for n in range(0, 200, 5)]
    assert controls.blocks("\n\n".join(paragraphs)) == paragraphs
    assert controls.blocks("\n".join(paragraphs)) == paragraphs
    wrapped = [textwrap.fill(paragraph, 72) for paragraph in paragraphs]
    found = controls.blocks("\n".join(wrapped))
    assert len(set(found) & set(wrapped)) > 0.6 * len(wrapped)  # but for those whose last line is full
    one_line = controls.blocks(" ".join(sentences))
    assert " ".join(one_line) == " ".join(sentences)
    assert all(part.endswith(".") and 500 <= len(part) < 700 for part in one_line[:-1])


def test_blocks_of_code_are_definitions():
    code = "import os\n\n\n" + "\n\n\n".join(
        f"class C{n}:\n    x = 1\n\n    def run(self):\n        y = 2\n\n        return y" for n in range(5)
    )
    assert controls.looks_like_code(code)
    assert controls.blocks(code)[1:3] == [
        "class C0:\n    x = 1",
        "    def run(self):\n        y = 2\n\n        return y",
    ]


def test_short_documents_keep_beginning_and_end_and_splices_of_them_alternate():
    chapters = [
        f"Chapter {n}\n\n" + "\n\n".join(f"p{n}.{m} " + "word " * 60 for m in range(8)) for n in range(9)
    ]
    parts = controls.short_documents("\n\n".join(chapters), rng=random.Random(0), least=1000, most=5000)
    assert len(parts) == 9
    assert all(part.startswith(f"Chapter {n}\n") and f"p{n}.7" in part for n, part in enumerate(parts))
    shelves = [[f"{shelf}-{n} " * 50 for n in range(4)] for shelf in "abc"]
    text = controls.spliced_documents(shelves, num_chars=2000, rng=random.Random(0))
    chosen = text.split("\n\n")
    assert len(chosen) == len(set(chosen)) > 4
    assert all(a[0] != b[0] for a, b in itertools.pairwise(chosen))
    assert set(chosen) <= {document for shelf in shelves for document in shelf}
    with pytest.raises(ConfigError, match="at least 2 shelves"):
        controls.spliced_documents([["a"], []], num_chars=10, rng=random.Random(0))


def test_renamed_gives_speakers_and_identifiers_new_names():
    talk = "".join(f"Project Manager: so number {n} is fine .\nMarketing: yes .\n" for n in range(40))
    out = controls.renamed(talk, rng=random.Random(0), piece_chars=200)
    assert "Manager" not in out
    assert out.count(": yes .") == 40
    code = "def load_rows(path):\n    all_rows = open(path)\n    return all_rows\n\n\n" * 30
    out = controls.renamed(code, rng=random.Random(0), piece_chars=200)
    assert "load_rows" not in out
    assert out.count("return ") == out.count("open(") == 30
    first = re.findall(r"\w+(?= = open)|(?<=return )\w+", out)[:2]
    assert first[0] == first[1]


def test_turns_are_drawn_once_each():
    talk = "\n".join(f"Anna: line {n}" for n in range(60))
    said = controls.turns(talk)
    assert said == talk.split("\n")
    mixed = controls.mixed_turns([said], num_chars=10_000, rng=random.Random(0)).split("\n")
    assert sorted(mixed) == sorted(said)
    assert mixed != said
    prose = 'She said "that the way was long and hard" and left. "I do not believe a word of it", he said.'
    assert [turn.split(": ")[1] for turn in controls.turns(prose)] == [
        "that the way was long and hard",
        "I do not believe a word of it",
    ]


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
