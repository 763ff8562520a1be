"""Needle threading (arXiv 2411.05000): look-ups in an object of UUID keys and values, alone, many, and in chains.

In a thread each value is the key of the next step, so an answer needs as many look-ups as it has steps. The branching
thread has two values per key at every step, one of which leads on. The single look-up is also the JSON recall of
HELMET (arXiv 2410.02694), whose settings it has: UUID pairs, asked for at a depth.
"""

import itertools
import random

from longlode.evaluate.tasks.generated import GeneratedTask, Question
from longlode.evaluate.tasks.words import random_uuid

NUM_KEYS = 5
NUM_STEPS = 5
NUM_THREADS = 3
_MARK = "*"
_INTRO = "A JSON object of keys and their values:\n"


def written(pairs: list[tuple[str, str]]) -> str:
    """The pairs as an object; a key may stand there more than once."""
    return _INTRO + "{" + ", ".join(f'"{key}": "{value}"' for key, value in pairs) + "}\n"


def _pairs(num: int, rng: random.Random) -> list[tuple[str, str]]:
    return [(random_uuid(rng), random_uuid(rng)) for _ in range(num)]


def _mixed(threads: list[list[tuple[str, str]]], others: int, rng: random.Random) -> list[tuple[str, str]]:
    pairs = [pair for thread in threads for pair in thread] + _pairs(others, rng)
    rng.shuffle(pairs)
    return pairs


def _thread(rng: random.Random) -> list[str]:
    """The first key, and what each step leads to."""
    return [random_uuid(rng) for _ in range(NUM_STEPS + 1)]


def _steps(names: list[str]) -> list[tuple[str, str]]:
    return list(itertools.pairwise(names))


class JsonRecall(GeneratedTask):
    """The value of one key, at a depth."""

    name = "json_recall"
    about = "the UUID that is the value of one UUID key of a JSON object"
    suites = ("recall",)

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` pairs."""
        pairs = _pairs(size, rng)
        key, value = pairs[round(depth * (size - 1))]
        meta = {"depth": depth, "num_pairs": size}
        return Question(written(pairs), f'The value of "{key}" is "', (f"{value}",), meta=meta)


class ManyNeedles(GeneratedTask):
    """The values of five keys."""

    name = "needles_many"
    about = "the values of five UUID keys of a JSON object"
    suites = ("recall",)
    smallest = NUM_KEYS

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` pairs."""
        pairs = _pairs(size, rng)
        asked = rng.sample(pairs, NUM_KEYS)
        ask = f"The values of {', '.join(key for key, _ in asked)}, in this order, are:"
        return Question(written(pairs), ask, tuple(value for _, value in asked))


class ConditionalNeedles(GeneratedTask):
    """The values of all keys with a mark."""

    name = "needles_conditional"
    about = "the values of all keys of a JSON object that begin with a mark"
    suites = ("recall",)
    smallest = NUM_KEYS

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` pairs, five of which have the mark."""
        pairs = _pairs(size, rng)
        marked = set(rng.sample(range(size), NUM_KEYS))
        pairs = [(_MARK + key if place in marked else key, value) for place, (key, value) in enumerate(pairs)]
        answers = tuple(value for key, value in pairs if key.startswith(_MARK))
        ask = f"The values of all keys that begin with {_MARK}, in the order of the object, are:"
        return Question(written(pairs), ask, answers)


class Thread(GeneratedTask):
    """The end of a chain of five look-ups."""

    name = "needle_thread"
    about = "the end of a chain of five look-ups, each value the next key"
    suites = ("reasoning",)

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` pairs besides the chain's."""
        names = _thread(rng)
        ask = f"Each value may be a key again. The chain that begins at {names[0]} ends at"
        return Question(written(_mixed([_steps(names)], size, rng)), ask, (names[-1],))


class Threads(GeneratedTask):
    """The ends of three chains of five look-ups."""

    name = "needle_threads"
    about = "the ends of three chains of five look-ups"
    suites = ("reasoning",)

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` pairs besides the chains'."""
        chains = [_thread(rng) for _ in range(NUM_THREADS)]
        starts = ", ".join(names[0] for names in chains)
        ask = f"Each value may be a key again. The chains that begin at {starts} end, in this order, at"
        pairs = _mixed([_steps(names) for names in chains], size, rng)
        return Question(written(pairs), ask, tuple(names[-1] for names in chains))


class BranchingThread(GeneratedTask):
    """The end of the longest of the branches that begin at one key."""

    name = "needle_branches"
    about = "the end of the longest chain from one key, where every key has two values and one is a dead end"
    suites = ("reasoning",)

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` pairs besides the chain's and its dead ends'."""
        names = _thread(rng)
        dead = [(name, random_uuid(rng)) for name in names[:-1]]
        dead[-1] = (random_uuid(rng), random_uuid(rng))  # two ends of one length would be two answers
        ask = (
            f"Values may be keys again, and keys stand there twice. The longest chain from {names[0]} ends at"
        )
        return Question(written(_mixed([_steps(names), dead], size, rng)), ask, (names[-1],))
