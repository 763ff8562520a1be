"""Functions learnt from examples in the context: of bits (arXiv 2310.03016), of numbers (arXiv 2311.00871).

Bits: a conjunction of some of eight inputs or their negations. The points that are asked for are those on which every
conjunction that fits the examples agrees, so the answer follows from the text. With a teaching sequence the examples
begin with the few that fix the function, as the paper's second setting does. Numbers: y = f(x) on whole numbers, of
one family per question (linear, or the distance to a point); the task outside asks for a family that is never among
those, a sawtooth, as a probe of what lies beyond.
"""

import random
from collections.abc import Callable, Sequence
from typing import ClassVar

from longlode.evaluate.tasks.generated import GeneratedTask, Question, answer_metrics

NUM_BITS = 8
_NUM_ASKED = 4
Literals = Sequence[tuple[int, int]]


def conjunction(literals: Literals, bits: Sequence[int]) -> int:
    """Return 1 where each (place, value) of the literals holds, else 0."""
    return int(all(bits[place] == value for place, value in literals))


def fitting(examples: Sequence[tuple[Sequence[int], int]], bits: Sequence[int]) -> set[int]:
    """Values at `bits` of the conjunctions that fit the examples.

    The narrowest one has every literal that holds in all positive examples. A wider one that is 1 at `bits` keeps of
    these only the literals that hold there; it exists iff those still refuse every negative example.
    """
    narrow = [
        (place, value)
        for place in range(len(bits))
        for value in (0, 1)
        if all(shown[place] == value for shown, label in examples if label)
    ]
    if conjunction(narrow, bits):
        return {1}
    wide = [(place, value) for place, value in narrow if bits[place] == value]
    refused = all(not conjunction(wide, shown) for shown, label in examples if not label)
    return {0, 1} if refused else {0}


class BooleanFunction(GeneratedTask):
    """Values of a conjunction at four points, from examples."""

    name = "boolean_function"
    about = "the value of an unknown conjunction of bits at four points, from examples"
    suites = ("reasoning",)
    choices = ("0", "1")
    smallest = 16
    taught: ClassVar[bool] = False

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` examples, half of them positive."""
        while True:
            literals = [(place, rng.randint(0, 1)) for place in sorted(rng.sample(range(NUM_BITS), 3))]
            points = [_point(literals, rng) for _ in range(size)]
            if self.taught:
                points[:0] = teaching(literals, rng)
                del points[size:]
            examples = [(point, conjunction(literals, point)) for point in points]
            known = [
                point
                for point in (_point(literals, rng) for _ in range(20 * _NUM_ASKED))
                if len(fitting(examples, point)) == 1
            ]
            if len(known) >= _NUM_ASKED:
                break
        asked = known[:_NUM_ASKED]
        context = "".join(f"{_row(point)} -> {label}\n" for point, label in examples)
        asks = [f"{_row(point)} ->" for point in asked]
        return Question(
            context,
            asks[0],
            tuple(str(conjunction(literals, point)) for point in asked),
            tuple(f"\n{ask} " for ask in asks[1:]),
            {"depth": None, "num_shown": size},
        )


class BooleanFunctionTaught(BooleanFunction):
    """The same, where the first examples fix the function."""

    name = "boolean_function_taught"
    about = "the same, where the first examples are a teaching sequence that fixes the function"
    taught = True


def teaching(literals: Literals, rng: random.Random) -> list[list[int]]:
    """Points that fix a conjunction: two positive ones that share its literals alone, and per literal a negative one
    that breaks nothing else.
    """
    chosen = dict(literals)
    first = [chosen.get(place, rng.randint(0, 1)) for place in range(NUM_BITS)]
    second = [bit if place in chosen else 1 - bit for place, bit in enumerate(first)]
    broken = [[1 - bit if place == at else bit for place, bit in enumerate(first)] for at in chosen]
    return [first, second, *broken]


def _point(literals: Literals, rng: random.Random) -> list[int]:
    """A random point, positive in half of the draws."""
    bits = [rng.randint(0, 1) for _ in range(NUM_BITS)]
    if rng.random() < 0.5:
        for place, value in literals:
            bits[place] = value
    return bits


def _row(bits: Sequence[int]) -> str:
    return " ".join(map(str, bits))


def _line(rng: random.Random) -> Callable[[int], int]:
    slope, offset = rng.randint(1, 9), rng.randint(0, 99)
    return lambda x: slope * x + offset


def _distance(rng: random.Random) -> Callable[[int], int]:
    slope, middle = rng.randint(1, 9), rng.randint(20, 80)
    return lambda x: slope * abs(x - middle)


def _sawtooth(rng: random.Random) -> Callable[[int], int]:
    period, slope = rng.randint(7, 13), rng.randint(2, 9)
    return lambda x: slope * (x % period)


class NumberFunction(GeneratedTask):
    """Values of a linear function or of a distance, at four numbers that are not among the examples."""

    name = "number_function"
    about = "the value of an unknown function of one number at four new numbers, from examples"
    suites = ("reasoning",)
    smallest = 8
    families: ClassVar[tuple[Callable[[random.Random], Callable[[int], int]], ...]] = (_line, _distance)

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` examples; the four numbers that are asked for are drawn with theirs and so lie among them."""
        function = rng.choice(self.families)(rng)
        numbers = rng.sample(range(100 + 4 * size), size + _NUM_ASKED)
        shown, asked = numbers[:size], numbers[size:]
        context = "".join(f"{x} -> {function(x)}\n" for x in shown)
        return Question(
            context,
            f"{asked[0]} ->",
            tuple(str(function(x)) for x in asked),
            tuple(f"\n{x} -> " for x in asked[1:]),
            {"depth": None, "num_shown": size},
        )


class NumberFunctionOutside(NumberFunction):
    """The same with a sawtooth, a family that `number_function` does not have."""

    name = "number_function_outside"
    about = "the same with a sawtooth, to compare with the families of number_function"
    families = (_sawtooth,)
    metrics = answer_metrics(0.04)
