"""In-context languages (after RegBench, arXiv 2401.12973): the next symbol in a string of a language shown by examples.

A language is a random automaton of 4 to 12 states over at most 18 symbols; each state has one to three ways on, all
equally likely. RegBench calls any legal next symbol right; here the scored places are those with one legal symbol, and
of those only where the strings before prove it, so a reader of the text alone can answer them all (`Automaton.proven`).
"""

import itertools
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from longlode.evaluate.tasks.generated import GeneratedTask, Question

SYMBOLS = tuple(string.ascii_lowercase[:18])
NUM_STATES = (4, 12)
MAX_EDGES = 3
MAX_STRING = 49
NUM_STRINGS = (10, 20)  # RegBench's; longer contexts hold more
_MAX_ANSWERS = 8
_LONGEST_RUN = 8
_STRATA = 10
_TRIES = 50
_SEPARATOR = " | "


@dataclass(frozen=True)
class Automaton:
    """A deterministic automaton, all of whose states accept; it starts in state 0.

    edges: for each state its symbols and where they lead.
    """

    edges: tuple[dict[str, int], ...]

    def walk(self, rng: random.Random, length: int) -> list[str]:
        """A string of `length` symbols, each drawn from the legal ones with equal odds."""
        symbols, state = [], 0
        for _ in range(length):
            symbol = rng.choice(sorted(self.edges[state]))
            symbols.append(symbol)
            state = self.edges[state][symbol]
        return symbols

    def after(self, symbols: Sequence[str], states: Sequence[int]) -> set[int]:
        """The states that the symbols lead to from those of `states` where they are legal."""
        reached = set(states)
        for symbol in symbols:
            reached = {self.edges[one][symbol] for one in reached if symbol in self.edges[one]}
        return reached

    def proven(self, shown: "Shown", symbols: Sequence[str]) -> Iterator[int]:
        """Places of `symbols` whose symbol follows from the strings shown.

        At such a place one symbol is legal, and the longest run of symbols before it that the strings have
        somewhere, with a symbol after it, leads to one state, whatever state it is read from. So what came after that
        run before must come again. A run that begins the string is read from state 0.
        """
        state = 0
        for place, symbol in enumerate(symbols):
            if len(self.edges[state]) == 1:
                runs = (tuple(symbols[start:place]) for start in range(max(0, place - _LONGEST_RUN), place))
                run = next((run for run in runs if run in shown.runs), ())
                everywhere = self.after(run, range(len(self.edges)))
                if tuple(symbols[:place]) in shown.beginnings or (run and len(everywhere) == 1):
                    yield place
            state = self.edges[state][symbol]


class Shown:
    """Strings, with what stands in them before a symbol: whole beginnings, and runs of up to eight symbols."""

    def __init__(self, strings: Sequence[Sequence[str]]) -> None:
        """Index the strings."""
        self.strings = [tuple(one) for one in strings]
        self.beginnings = {one[:stop] for one in self.strings for stop in range(len(one))}
        self.runs = {
            one[start:stop]
            for one in self.strings
            for stop in range(len(one))
            for start in range(max(0, stop - _LONGEST_RUN), stop)
        }


def random_automaton(rng: random.Random) -> Automaton:
    """An automaton with RegBench's settings: no edge back to its own state, no two edges to one state, minimal."""
    num = rng.randint(*NUM_STATES)
    alphabet = rng.sample(SYMBOLS, rng.randint(MAX_EDGES + 1, len(SYMBOLS)))
    edges = []
    for state in range(num):
        targets = rng.sample([one for one in range(num) if one != state], rng.randint(1, MAX_EDGES))
        edges.append(dict(zip(rng.sample(alphabet, len(targets)), targets, strict=True)))
    return Automaton(tuple(minimal(edges)))


def minimal(edges: Sequence[dict[str, int]]) -> list[dict[str, int]]:
    """The same language with the fewest states: those not reached are left out, those that behave alike are one."""
    order = [0]
    for state in order:  # grows as it is read
        order += [
            one
            for one in dict.fromkeys(edges[state][symbol] for symbol in sorted(edges[state]))
            if one not in order
        ]
    block = dict.fromkeys(order, 0)
    while True:
        signs = {one: tuple((s, block[edges[one][s]]) for s in sorted(edges[one])) for one in order}
        numbers: dict[tuple[object, ...], int] = {}
        finer = {one: numbers.setdefault((block[one], signs[one]), len(numbers)) for one in order}
        if len(numbers) == len(set(block.values())):
            break
        block = finer
    first = {finer[one]: one for one in reversed(order)}
    return [{symbol: finer[to] for symbol, to in edges[first[k]].items()} for k in range(len(numbers))]


def string_lengths(rng: random.Random, num: int) -> list[int]:
    """Lengths 1 to 49, all equally likely; of ten in a row each tenth of that range has one, so sums vary little."""
    tenths: list[int] = []
    while len(tenths) < num:
        tenths += rng.sample(range(_STRATA), _STRATA)
    return [1 + int(MAX_STRING * (tenth + rng.random()) / _STRATA) for tenth in tenths[:num]]


class RegularLanguage(GeneratedTask):
    """Symbols that must come next in one more string of a language."""

    name = "regular_language"
    about = "the only legal next symbols in one more string of a random language, shown by strings"
    suites = ("reasoning",)
    choices = SYMBOLS
    smallest = NUM_STRINGS[0]
    spare = 1.4  # the string that is asked about has 1 to 49 symbols

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` strings of 1 to 49 symbols, and one more, in which up to eight symbols are asked for."""
        while True:
            automaton = random_automaton(rng)
            shown = Shown([automaton.walk(rng, length) for length in string_lengths(rng, size)])
            for _ in range(_TRIES):
                asked = automaton.walk(rng, rng.randint(1, MAX_STRING))
                places = list(automaton.proven(shown, asked))[:_MAX_ANSWERS]
                if places:
                    return _question(shown.strings, asked, places, len(automaton.edges))


def _question(shown: list[tuple[str, ...]], asked: list[str], places: list[int], num_states: int) -> Question:
    context = "".join(" ".join(one) + _SEPARATOR for one in shown).rstrip()
    ask = "".join(f" {symbol}" for symbol in asked[: places[0]])
    between = [asked[left + 1 : right] for left, right in itertools.pairwise(places)]
    joints = tuple("".join(f" {symbol}" for symbol in one) + " " for one in between)
    meta = {"depth": None, "num_strings": len(shown), "num_states": num_states}
    return Question(context, ask, tuple(asked[place] for place in places), joints, meta)
