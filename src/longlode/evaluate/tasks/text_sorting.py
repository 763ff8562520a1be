"""TSort of Ada-LEval (arXiv 2404.06480): shuffled segments of a text, with the text before and after, put in order."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

from longlode.evaluate.tasks.base import MAIN, Example, Metric, Scores
from longlode.evaluate.tasks.excerpts import Asked, ExcerptTask

NUM_SEGMENTS = 4
_ORDERS = tuple(itertools.permutations(range(1, NUM_SEGMENTS + 1)))


class TextSorting(ExcerptTask):
    """The order of four segments of a held-out document."""

    name = "text_sorting"
    about = "the order of four shuffled segments of a held-out document, with the text before and after them"
    least = 2 * NUM_SEGMENTS
    metrics = (
        Metric(
            "hard",
            "greedy decoding writes the whole order",
            "share",
            "higher",
            "wilson",
            words="orders found",
            headline=True,
            chance=1 / len(_ORDERS),
        ),
        Metric("smooth", "log-probability of the order", "nats/token", "higher"),
    )

    def asked(self, parts: Sequence[str], seed: int) -> Asked:
        """An eighth of the sentences before and after, the rest in four equal segments; every order equally often."""
        around = len(parts) // 8
        inner = parts[around : len(parts) - around]
        edges = [len(inner) * number // NUM_SEGMENTS for number in range(NUM_SEGMENTS + 1)]
        segments = [" ".join(inner[a:b]) for a, b in itertools.pairwise(edges)]
        shown = random.Random(f"text_sorting {seed // len(_ORDERS)}").sample(_ORDERS, len(_ORDERS))[
            seed % len(_ORDERS)
        ]
        lines = "".join(f"Segment {number}: {segments[which - 1]}\n" for number, which in enumerate(shown, 1))
        # Segment number n holds part shown[n - 1]; the answer lists the numbers in the order of the parts.
        order = sorted(range(1, NUM_SEGMENTS + 1), key=lambda number: shown[number - 1])
        before, after = " ".join(parts[:around]), " ".join(parts[len(parts) - around :])
        prompt = (
            f"Before: {before}\n{lines}After: {after}\n"
            f"Between the text before and after, the segments 1 to {NUM_SEGMENTS} stand in the order"
        )
        return Asked(prompt, " ".join(map(str, order)), {}, {"depth": None})

    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """One row: whether greedy decoding writes the order, and its log-probability."""
        answer = scores[MAIN][0]
        return [{"hard": float(answer.greedy_exact), "smooth": -answer.mean_nats}]
