"""Pathfinder of Long Range Arena (arXiv 2011.04006), generated: do two dots lie on one dashed path?

LRA reads 32 x 32 pixels (Pathfinder) or 128 x 128 (Path-X) of a data set; here the pixels are drawn by a seed and
written as one symbol each, row by row, so that the length is the number of pixels. Two dashed curves cross the picture
from top to bottom and never come near each other; the dots lie on the same one in half of the pictures.
"""

import random

from longlode.evaluate.tasks.generated import GeneratedTask, Question

EMPTY, DASH, DOT = ".", "#", "O"
_LEAST_SIDE = 16
_APART = 6  # columns between the curves at least; dashes of one curve are at most `_GAP` + 1 rows apart
_DASH, _GAP = 3, 1


class Pathfinder(GeneratedTask):
    """Two dots of a picture, joined by a dashed curve or not."""

    name = "pathfinder"
    about = "whether two dots lie on one dashed curve of a picture, written pixel by pixel"
    suites = ("reasoning",)
    choices = ("no", "yes")
    spare = 1.0

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """A square picture with sides of `size + 15` pixels."""
        side = _LEAST_SIDE + size - 1
        columns = curves(side, rng)
        rows = [[EMPTY] * side for _ in range(side)]
        for columns_of_curve in columns:
            for row, column in enumerate(columns_of_curve):
                if row % (_DASH + _GAP) < _DASH:
                    rows[row][column] = DASH
        joined = rng.random() < 0.5
        top = rng.randrange(2)
        bottom = top if joined else 1 - top
        rows[0][columns[top][0]] = rows[side - 1][columns[bottom][side - 1]] = DOT
        context = "".join(" ".join(row) + "\n" for row in rows)
        ask = f"Are the two {DOT} on one path? The answer is"
        meta = {"depth": None, "side": side}
        return Question(context, ask, (self.choices[joined],), meta=meta)


def curves(side: int, rng: random.Random) -> tuple[list[int], list[int]]:
    """Columns of a left and a right curve, row by row; each moves by at most one column per row."""
    middle = side // 2
    left, right = rng.randrange(0, middle - _APART // 2), rng.randrange(middle + _APART // 2, side)
    found: tuple[list[int], list[int]] = ([], [])
    for _ in range(side):
        left = min(max(left + rng.choice((-1, 0, 1)), 0), side - 1 - _APART)
        right = min(max(right + rng.choice((-1, 0, 1)), left + _APART), side - 1)
        found[0].append(left)
        found[1].append(right)
    return found
