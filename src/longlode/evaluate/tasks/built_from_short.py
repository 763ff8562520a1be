"""Long questions built from short ones, as M4LE does (arXiv 2310.19240): one short text among many.

Explicit: the question names the paragraph by its number. Semantic: it names what the paragraph is about. Several: the
answers of all paragraphs about one thing. The short texts are generated; M4LE takes them from data sets.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from longlode.evaluate.tasks.generated import GeneratedTask, Question
from longlode.evaluate.tasks.people import full_names, place_names
from longlode.evaluate.tasks.words import NOUNS, filler_sentence

NUM_SAME = 3


@dataclass(frozen=True)
class Short:
    """A short text about `topic`, by `author`, with the answer that the question asks for."""

    text: str
    topic: str
    author: str
    answer: str


def shorts(rng: random.Random, num: int) -> list[Short]:
    """So many short texts by different authors, each about a find in another place."""
    names, places = full_names(rng, num), place_names(rng, num)
    topics = [NOUNS[number % len(NOUNS)] for number in rng.sample(range(num), num)]
    found = []
    for name, place, topic in zip(names, places, topics, strict=True):
        sentences = [filler_sentence(rng) for _ in range(3)]
        sentences.insert(rng.randint(0, 3), f"{name} found the {topic} in {place}.")
        found.append(Short(" ".join(sentences), topic, name, place))
    return found


class _Built(GeneratedTask):
    suites = ("recall",)
    smallest = 4
    largest = 5000


class BuiltExplicit(_Built):
    """The paragraph of a number."""

    name = "paragraph_by_number"
    about = "where something was found, in the paragraph of a given number"

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` paragraphs; the asked one stands at its depth."""
        texts = shorts(rng, size)
        place = round(depth * (size - 1))
        ask = f"In paragraph {place + 1}, it was found in"
        return Question(
            numbered(texts), ask, (texts[place].answer,), meta={"depth": depth, "num_paragraphs": size}
        )


class BuiltSemantic(_Built):
    """The paragraph about somebody."""

    name = "paragraph_by_content"
    about = "where a given person found something, in one paragraph of many"

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` paragraphs; the asked one stands at its depth."""
        texts = shorts(rng, size)
        place = round(depth * (size - 1))
        one = texts[place]
        ask = f"{one.author} found it in"
        return Question(numbered(texts), ask, (one.answer,), meta={"depth": depth, "num_paragraphs": size})


class BuiltSeveral(_Built):
    """All paragraphs by some people."""

    name = "paragraphs_by_content"
    about = "where three given people found something, each in one paragraph of many"

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` paragraphs."""
        texts = shorts(rng, size)
        asked = rng.sample(texts, NUM_SAME)
        asks = [f"{one.author} found it in" for one in asked]
        return Question(
            numbered(texts),
            asks[0],
            tuple(one.answer for one in asked),
            tuple(f". {ask} " for ask in asks[1:]),
            {"depth": None, "num_paragraphs": size},
        )


def numbered(texts: Sequence[Short]) -> str:
    """The paragraphs with their numbers from 1."""
    return "".join(f"Paragraph {number}: {one.text}\n" for number, one in enumerate(texts, 1))
