"""The far-dependency benchmark's texts say what they claim, and the held-out works stay unread."""

import itertools
import json
import random
from collections import Counter

import pytest

from benchmarks import works
from benchmarks.far_truth import code_references, latex_references, with_facts
from benchmarks.gate_set import laid_out
from benchmarks.works import Work, num_tokens, works_of
from longlode.core.errors import ConfigError
from longlode.synthetic.families import FAMILIES, Draw, cut_tokens, stretch

LENGTH = 2048


def prose(seed: int, num_sentences: int = 1800) -> str:
    """Sentences of a private vocabulary, four to a paragraph."""
    rng = random.Random(seed)
    words = [f"{a}{b}{seed}x" for a in "bcdfglmnprst" for b in ("arin", "elo", "omi", "uter")]
    made = []
    for number in range(num_sentences):
        sentence = " ".join(rng.choices(words, k=9)).capitalize() + "."
        made.append(sentence + ("\n\n" if number % 4 == 3 else " "))
    return "".join(made)


@pytest.fixture(scope="module")
def draw() -> Draw:
    made = [Work(f"book/A{n}_x", "book", "en", "fit", prose(n)) for n in range(4)]
    strangers = [Work("x", "law", "en", "fit", prose(9))]
    return Draw(made, LENGTH, random.Random(0), strangers, strangers)


def test_every_family_makes_a_text_that_differs_from_its_sources(draw: Draw) -> None:
    whole = "\n".join(work.text for work in draw.works)
    without = set()
    for makers in FAMILIES.values():
        for name, make in makers.items():
            text = make(draw)
            if text is None or name == "lists":
                without.add(name)
            else:
                assert num_tokens(text) > 0.9 * LENGTH, name
                assert text[:6000] not in whole, name
    # No speech, no names, few words; pieces of 3,000 bytes do not fit three times into so short a text.
    assert without <= {"chat", "lists", "renamed", "drifting", "three-interleaved-3000", "index"}


@pytest.mark.parametrize("name", ["paragraphs-reversed", "permuted-200"])
def test_reordering_keeps_the_words(draw: Draw, name: str) -> None:
    makers = {label: make for group in FAMILIES.values() for label, make in group.items()}
    text = makers[name](draw)
    assert text is not None
    words = Counter(text.split())
    assert any(not words - Counter(work.text.split()) for work in draw.works)


def test_interleaved_text_alternates(draw: Draw) -> None:
    makers = FAMILIES["interleaved"]
    text = makers["interleaved-paragraphs"](draw)
    assert text is not None
    sources = [part.split()[0].rstrip(".")[-2] for part in text.split("\n\n") if part.strip()]
    assert all(a != b for a, b in itertools.pairwise(sources))
    assert len(set(sources)) == 2


def test_facts_are_planted_at_their_distance_and_as_many_match() -> None:
    text = with_facts(prose(1, 4000), 1024, 16, random.Random(3))
    first = {m: text.index(f"spoke of {m} again") for m in _names(text, "spoke of ", " again")}
    later = _names(text, "And ", " was there")
    assert len(first) == 64
    assert len(later) == 64
    matching = [name for name in later if name in first]
    assert len(matching) == 16
    for name in matching:
        gap = (text.index(f"And {name} was there") - first[name]) / 4
        assert 1024 < gap < 2048


def _names(text: str, before: str, after: str) -> list[str]:
    return [part.split(after)[0] for part in text.split(before)[1:] if after in part[:40]]


def test_references_point_back_to_their_labels() -> None:
    text = r"\label{a} text \ref{a} \olref[x][y]{b} \ollabel{b} \ref{b}"
    found = list(latex_references(text))
    assert found == [(text.index(r"\ref{a}"), 0), (text.index(r"\ref{b}"), text.index(r"\ollabel"))]
    code = "def compute():\n    pass\nclass Twice: ...\nclass Twice: ...\ncompute(); Twice()"
    assert list(code_references(code)) == [(code.rindex("compute"), 4)]


def test_stretch_and_cut_have_the_length_asked_for() -> None:
    text = prose(2)
    found = stretch(text, LENGTH, random.Random(1))
    assert found is not None
    assert found in text
    assert LENGTH - 30 < num_tokens(found) <= LENGTH
    assert cut_tokens("short", 10) is None
    assert stretch("short", 10, random.Random(1)) is None


def test_layouts_keep_the_words() -> None:
    text = prose(3, 200)
    layouts = {laid_out(text, random.Random(seed)) for seed in range(20)}
    assert len(layouts) == 3
    assert all(each.split() == text.split() for each in layouts)


def test_heldout_works_need_the_flag_and_are_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: "works.Path"
) -> None:
    found = tuple(Work(f"w{side}", "book", "en", side, "text") for side in works.SIDES)
    monkeypatch.setattr(works, "_all_works", lambda: found)
    monkeypatch.setattr(works, "RESULTS", tmp_path)
    monkeypatch.setattr(works, "HELDOUT_RECORD", tmp_path / "reads.jsonl")
    with pytest.raises(ConfigError, match="--heldout"):
        works_of("heldout")
    assert not (tmp_path / "reads.jsonl").exists()
    assert [work.id for work in works_of("heldout", heldout=True)] == ["wheldout"]
    assert "command" in json.loads((tmp_path / "reads.jsonl").read_text())
    with pytest.raises(ConfigError, match="expected one of"):
        works_of("test")
