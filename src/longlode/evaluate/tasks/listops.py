"""ListOps of the Long Range Arena (arXiv 2011.04006): the value of nested MIN, MAX, MED and SM over digits.

At most ten levels and ten arguments, digits as leaves, ten classes. Trees are grown at random leaves up to a size,
not drawn and rejected by length, so that every length can be asked for; scores do not compare with the arena's.
"""

import random
from dataclasses import dataclass, field

from longlode.evaluate.tasks.generated import GeneratedTask, Question

OPERATORS = ("MIN", "MAX", "MED", "SM")
MAX_DEPTH = 10
MAX_ARGUMENTS = 10


@dataclass
class Node:
    """A digit, or an operator over nodes."""

    digit: int
    depth: int
    operator: str = ""
    arguments: list["Node"] = field(default_factory=list)

    def text(self) -> str:
        """In prefix form, as `[MAX 2 [MIN 3 4] ]`."""
        if not self.operator:
            return str(self.digit)
        return f"[{self.operator} {' '.join(node.text() for node in self.arguments)} ]"

    def value(self) -> int:
        """The digit that it comes to. MED is the floor of the median, SM the sum modulo ten."""
        if not self.operator:
            return self.digit
        values = sorted(node.value() for node in self.arguments)
        middle = len(values) // 2
        median = values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) // 2
        return {"MIN": values[0], "MAX": values[-1], "MED": median, "SM": sum(values) % 10}[self.operator]


def tree(rng: random.Random, leaves: int) -> Node:
    """A random expression of `leaves` digits or a few more; at least two."""
    root = Node(0, 1)
    open_leaves, num_leaves = [root], 1
    while num_leaves < max(2, leaves):
        node = open_leaves.pop(rng.randrange(len(open_leaves)))
        node.operator = rng.choice(OPERATORS)
        for _ in range(rng.randrange(2, MAX_ARGUMENTS + 1)):
            node.arguments.append(Node(rng.randrange(10), node.depth + 1))
        num_leaves += len(node.arguments) - 1
        if node.depth < MAX_DEPTH - 1:
            open_leaves += node.arguments
    return root


class ListOps(GeneratedTask):
    """The value of a nested expression."""

    name = "listops"
    about = "the digit that nested minima, maxima, medians and sums modulo ten come to"
    suites = ("reasoning",)
    choices = tuple("0123456789")
    smallest = 2

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """About `size` digits."""
        root = tree(rng, size)
        return Question(f"An expression:\n{root.text()}\n", "Its value is", (str(root.value()),))
