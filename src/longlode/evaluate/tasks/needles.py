"""Needles in a haystack: facts said once among other text, asked for at the end, in the forms of RULER.

Settings of RULER (arXiv 2404.06654): a needle names a key of an adjective and a noun (or a UUID) and a value of seven
digits (or a UUID); the haystack is a line that repeats, prose, or more needles. The instruction is worded here. Prose
is the held-out texts where there are some, else generated sentences: scores of the two do not compare, nor with those
on the essays of the original.
"""

import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from longlode.evaluate.tasks.generated import GeneratedTask, Question, spread
from longlode.evaluate.tasks.words import ADJECTIVES, NOUNS, filler_sentence, random_uuid

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
_NEEDLE = "One of the special magic {kind}s for {key} is: {value}."
_INTRO = "Special magic {kind}s stand in the text below. Keep them in mind; they are asked for at its end.\n"
_ASK = "\nWhich special magic {kind}s does the text name for {key}, in the order of the text? They are:"
_NUM_DEPTHS = 40


@dataclass(frozen=True)
class Setting:
    """The needles that one member of the family hides and asks for.

    haystack: of what.   keys, values: of which kind.   num_keys, num_values: hidden keys, and values of an asked one.
    num_queries: keys asked for.
    """

    haystack: Literal["noise", "prose", "needles"]
    keys: Literal["word", "uuid"] = "word"
    values: Literal["number", "uuid"] = "number"
    num_keys: int = 1
    num_values: int = 1
    num_queries: int = 1


class Needles(GeneratedTask):
    """The family; its members set `setting`."""

    setting: ClassVar[Setting]
    suites = ("recall",)

    def prepare(self) -> None:
        """Split the held-out texts into sentences, once."""
        flat = [text.replace("\n", " ").split(". ") for text in self.texts]
        self._sentences = [[part.strip() for part in parts if part.strip()] for parts in flat]

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` lines, sentences or further needles around the hidden ones."""
        s = self.setting
        num_hay = size if s.haystack == "needles" else 0
        keys = self._keys(s.num_keys + num_hay, rng)
        asked, others = keys[: s.num_queries], keys[s.num_queries :]
        values = {key: [self._value(rng) for _ in range(s.num_values)] for key in asked}
        values |= {key: [self._value(rng)] for key in others}
        near = [self._needle(key, value) for key in keys[: s.num_keys] for value in values[key]]
        depths = sorted(rng.randrange(_NUM_DEPTHS) / (_NUM_DEPTHS - 1) for _ in near)
        if len(near) == 1 or s.haystack == "needles":
            depths = [depth] * len(near)
        elif s.num_keys > s.num_queries:  # the asked needle is not always the first
            rng.shuffle(depths)
        hay = self._hay(size, [self._needle(key, values[key][0]) for key in keys[s.num_keys :]], rng)
        context = _INTRO.format(kind=s.values) + " ".join(spread(hay, near, depths))
        named = ", ".join(asked[:-1]) + f" and {asked[-1]}" if len(asked) > 1 else asked[0]
        answers = tuple(value for key in asked for value in values[key])
        places = depths[: len(answers)]
        meta = {"depth": sum(places) / len(places) if len(answers) == 1 else None, "num_lines": len(hay)}
        return Question(context, _ASK.format(kind=s.values, key=named), answers, meta=meta)

    def _keys(self, num: int, rng: random.Random) -> list[str]:
        if self.setting.keys == "uuid":
            return [random_uuid(rng) for _ in range(num)]
        pairs = rng.sample(range(len(ADJECTIVES) * len(NOUNS)), num)
        return [f"{ADJECTIVES[pair // len(NOUNS)]}-{NOUNS[pair % len(NOUNS)]}" for pair in pairs]

    def _value(self, rng: random.Random) -> str:
        return random_uuid(rng) if self.setting.values == "uuid" else str(rng.randrange(10**6, 10**7))

    def _needle(self, key: str, value: str) -> str:
        return _NEEDLE.format(kind=self.setting.values, key=key, value=value)

    def _hay(self, size: int, needles: list[str], rng: random.Random) -> list[str]:
        if self.setting.haystack == "needles":
            return needles
        if self.setting.haystack == "noise":
            return [NOISE] * size
        if not self._sentences:
            return [filler_sentence(rng) for _ in range(size)]
        found: list[str] = []
        while len(found) < size:
            found += [f"{sentence}." for sentence in rng.choice(self._sentences)]
        return found[:size]


class NeedleInNoise(Needles):
    """One needle in a line that repeats."""

    name = "niah_single_1"
    about = "seven digits for a word key, in a line that repeats"
    setting = Setting("noise")


class NeedleInProse(Needles):
    """One needle in prose."""

    name = "niah_single_2"
    about = "seven digits for a word key, in prose"
    setting = Setting("prose")


class UuidInProse(Needles):
    """One needle with a UUID as its value, in prose."""

    name = "niah_single_3"
    about = "a UUID for a word key, in prose"
    setting = Setting("prose", values="uuid")


class FourKeys(Needles):
    """Four needles in prose, one of them asked for."""

    name = "niah_multikey_1"
    about = "the digits of one of four keys, in prose"
    setting = Setting("prose", num_keys=4)


class NeedleInNeedles(Needles):
    """A needle among needles."""

    name = "niah_multikey_2"
    about = "the digits of one key, in a text of nothing but such keys"
    setting = Setting("needles")


class UuidInUuids(Needles):
    """A needle among needles, keys and values UUIDs."""

    name = "niah_multikey_3"
    about = "the UUID of a UUID, in a text of nothing but those"
    setting = Setting("needles", keys="uuid", values="uuid")


class FourValues(Needles):
    """One key with four values in prose, all asked for."""

    name = "niah_multivalue"
    about = "all four numbers of one key, in prose"
    setting = Setting("prose", num_values=4)


class FourQueries(Needles):
    """Four keys in prose, all asked for."""

    name = "niah_multiquery"
    about = "the numbers of four keys, in prose"
    setting = Setting("prose", num_keys=4, num_queries=4)
