"""Recall: a page of `key = value;` lines, then one of the keys again.

The text twin of multi-query associative recall (Zoology, arXiv 2312.04927): every line is a fact to keep, so
the number of facts grows with the length, where the passkey task has one. A key is an adjective and a noun
that other keys share, so that neither word alone is enough.
"""

import random
from dataclasses import dataclass

from longlode.evaluate.tasks.controlled import HiddenAnswer, Page
from longlode.evaluate.tasks.words import ADJECTIVES, NOUNS

_NUM_KEYS = len(ADJECTIVES) * len(NOUNS)


@dataclass
class _PairPage(Page):
    keys: list[str]
    values: list[str]
    depth: float
    size_name: str = "num_pairs"
    size_offset: int = 1  # size 0 is a page of one pair

    @property
    def max_size(self) -> int:  # type: ignore[override]
        return len(self.keys) - 1

    def prompt(self, size: int, with_fact: bool) -> str:
        asked = round(self.depth * size)
        shown = [index for index in range(size + 1) if with_fact or index != asked]
        return "".join(f"{self.keys[i]} = {self.values[i]};\n" for i in shown) + f"{self.keys[asked]} ="

    def answer(self, size: int) -> str:
        return self.values[round(self.depth * size)]


class Recall(HiddenAnswer):
    """Look-up of one of many key and value lines; the control lacks the asked line."""

    name = "recall"
    about = "one of many 'key = value' lines is asked for again"
    suites = ("basic", "recall")

    def page(self, length: int, seed: int, depth: float) -> Page:
        """Distinct keys with random nouns as values; the size is the number of pairs after the first."""
        rng = random.Random(f"recall {length} {seed}")
        keys = rng.sample(range(_NUM_KEYS), min(length, _NUM_KEYS))  # a pair takes more than one token
        names = [f"{ADJECTIVES[key // len(NOUNS)]} {NOUNS[key % len(NOUNS)]}" for key in keys]
        return _PairPage(names, [rng.choice(NOUNS) for _ in names], depth)
