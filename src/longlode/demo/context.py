"""The context curve of a model: the loss of the same tokens after more and more of the text before them."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longlode.core.errors import ConfigError
from longlode.evaluate.statistics import bootstrap_mean
from longlode.evaluate.tasks import MAIN, Curve, Example, Metric, Scores, Task

CONTEXTS = (16, 64, 256, 1024, 4096)
"""Context lengths, in tokens before the targets."""
NUM_TARGETS = 128


class ContextCurve(Task):
    """One window per text, at a random place: its last tokens are predicted once per context.

    All contexts end at the same tokens, so that their losses differ by the context alone.
    """

    name = "context_curve"
    about = "loss of the same tokens after more and more context"
    needs_texts = True
    weight_column = "num_scored"
    group_column = "text"
    key_columns = ("context",)
    curve = Curve("context", "context", "nats")
    metrics = (
        Metric(
            "nats",
            "loss of the same tokens",
            "nats/token",
            "lower",
            words="loss of the same tokens",
            headline=True,
        ),
    )

    def __init__(
        self, contexts: Sequence[int] = CONTEXTS, num_targets: int = NUM_TARGETS, seed: int = 0
    ) -> None:
        """Set sizes. Args: contexts, tokens, ascending; num_targets, tokens that are predicted; seed, of the places."""
        self.contexts, self.num_targets, self.seed = tuple(contexts), num_targets, seed

    @property
    def length(self) -> int:
        """Tokens of a window."""
        return self.contexts[-1] + self.num_targets

    def options(self) -> dict[str, Any]:
        """See `Task.options`."""
        return {"contexts": [*self.contexts], "num_targets": self.num_targets, "seed": self.seed}

    def prepare(self) -> None:
        """Tokenize every text once; those shorter than a window are left out."""
        self._offsets: dict[int, list[tuple[int, int]]] = {}
        for number, text in enumerate(self.texts):
            found = [pair for pair in self.encode(text).offsets if pair[0] < pair[1]]
            if len(found) >= self.length:
                self._offsets[number] = found

    def num_available(self, length: int, asked: int) -> int:
        """Number of windows: one per text that is long enough."""
        return min(asked, len(self._offsets))

    def make(self, length: int, seed: int) -> Example:
        """The window of one text. Raises: ConfigError when no text is long enough."""
        if not self._offsets:
            raise ConfigError(
                f"task {self.name!r} needs texts of at least {self.length} tokens; none of "
                f"{len(self.texts)} is as long."
            )
        number = [*self._offsets][seed % len(self._offsets)]
        offsets, text = self._offsets[number], self.texts[number]
        first = random.Random(f"{self.seed} {number}").randint(0, len(offsets) - self.length)
        target = offsets[first + self.contexts[-1]][0]
        stop = offsets[first + self.length - 1][1]
        sides = [
            _side(text, offsets[first + self.contexts[-1] - context][0], target, stop, number)
            for context in reversed(self.contexts)
        ]
        names = [str(context) for context in reversed(self.contexts)]
        variants = dict(zip(names[1:], sides[1:], strict=True))
        return Example(
            sides[0].prompt, sides[0].target, sides[0].answer_spans, {"text": number, "depth": None}, variants
        )

    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """One row per context."""
        rows = []
        for context in self.contexts:
            (score,) = scores[MAIN if context == self.contexts[-1] else str(context)]
            rows.append({"context": context, "num_scored": len(score.nats), "nats": score.mean_nats})
        return rows


def _side(text: str, start: int, target: int, stop: int, number: int) -> Example:
    span = (target - start, stop - start)
    return Example(text[start:target], text[target:stop], (span,), {"text": number, "depth": None})


@dataclass(frozen=True)
class Gain:
    """Nats per token that far tokens save over near ones, with a 95 % bootstrap interval over the texts."""

    near: int
    far: int
    mean: float
    low: float | None
    high: float | None
    num_texts: int


def losses(rows: Sequence[Mapping[str, Any]]) -> dict[int, dict[int, float]]:
    """Context -> text -> loss, of the rows that an evaluation wrote."""
    found: dict[int, dict[int, float]] = {}
    for row in rows:
        if row["task"] == ContextCurve.name:
            found.setdefault(int(row["context"]), {})[int(row["text"])] = float(row["nats"])
    return found


def gain(found: Mapping[int, Mapping[int, float]], near: int, far: int) -> Gain:
    """Nats per token that `far` tokens of context save over `near`, paired by text. Args: found, as of `losses`."""
    texts = sorted(found[near].keys() & found[far].keys())
    saved = np.array([found[near][text] - found[far][text] for text in texts])
    return Gain(near, far, *bootstrap_mean(saved), len(texts))
