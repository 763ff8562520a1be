"""Variable tracking, in RULER's form: which variables have the value that one was given, over four hops of assignment.

One chain of five variables of five letters, a five-digit value, a line that repeats as the haystack, and one worked
example before the question. The assignments keep their order in the text, so one pass from left to right is enough.
"""

import itertools
import random
import string

from longlode.evaluate.tasks.generated import GeneratedTask, Question, spread
from longlode.evaluate.tasks.needles import NOISE

HOPS = 4
_EXAMPLE_LINES = 3
_INTRO = "Follow the assignments of variables that stand in the text.\n"
_ASK = "\nAll {num} variables that have the value {value} in this text, in its order, are:"


def chain(rng: random.Random) -> tuple[list[str], str]:
    """Names of the variables in the order of assignment, and the value of the first."""
    names: list[str] = []
    while len(names) < HOPS + 1:
        name = "".join(rng.choices(string.ascii_uppercase, k=5))
        if name not in names:
            names.append(name)
    return names, str(rng.randrange(10**4, 10**5))


class VariableTracking(GeneratedTask):
    """Names of all variables of one chain of assignments."""

    name = "variable_tracking"
    about = "all variables with one value, through four assignments of one variable to the next"
    suites = ("reasoning",)

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` noise lines around the assignments, which stand at random depths."""
        example, wanted = self._one(_EXAMPLE_LINES, rng), self._one(size, rng)
        shown = _INTRO + example[0] + example[1] + " " + ", ".join(example[2]) + ".\n\n"
        return Question(
            shown + _INTRO + wanted[0], wanted[1], wanted[2], meta={"depth": None, "num_lines": size}
        )

    def _one(self, size: int, rng: random.Random) -> tuple[str, str, tuple[str, ...]]:
        names, value = chain(rng)
        lines = [f"VAR {names[0]} = {value}."]
        lines += [f"VAR {name} = VAR {source}." for source, name in itertools.pairwise(names)]
        depths = sorted(rng.random() for _ in lines)
        text = " ".join(spread([NOISE] * size, lines, depths))
        return text, _ASK.format(num=len(names), value=value), tuple(names)
