"""A chain of dynamic programming: the cheapest way along a road, whose lanes are the state that must be kept.

After the study of what a state of fixed size can do (arXiv 2402.15268 has copying and dynamic programming): each step
changes every lane's cost by those of its neighbours, so the state is one number per lane, however long the road.
"""

import random

from longlode.evaluate.tasks.generated import GeneratedTask, Question

NUM_LANES = 3
_MODULUS = 10


def cheapest(rows: list[list[int]]) -> int:
    """Least cost from the first row to the last, moving on by at most one lane per row."""
    costs = rows[0]
    for row in rows[1:]:
        costs = [cost + min(costs[max(0, lane - 1) : lane + 2]) for lane, cost in enumerate(row)]
    return min(costs)


class CheapestRoad(GeneratedTask):
    """Least cost of a road, modulo ten."""

    name = "cheapest_road"
    about = "the least cost, modulo ten, of a way along a road of three lanes"
    suites = ("reasoning",)
    choices = tuple("0123456789")
    smallest = 2

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` rows of costs from 0 to 9."""
        rows = [[rng.randrange(_MODULUS) for _ in range(NUM_LANES)] for _ in range(size)]
        context = "".join(" ".join(map(str, row)) + "\n" for row in rows)
        ask = "The least cost from the first row to the last, one lane aside at most per row, modulo ten:"
        answer = str(cheapest(rows) % _MODULUS)
        return Question(context, ask, (answer,), meta={"depth": None, "num_rows": size})
