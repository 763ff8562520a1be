"""Context curves as the demo shows them: loss by context, and what the far context saves, from an evaluation's rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longlode.evaluate.statistics import bootstrap_mean


@dataclass(frozen=True)
class Gain:
    """Nats per token that far tokens save over near ones, with a 95 % bootstrap interval over the texts."""

    near: int
    far: int
    mean: float
    low: float | None
    high: float | None
    num_texts: int


@dataclass(frozen=True, eq=False)
class Curves:
    """Losses of N windows after C contexts of tokens.

    contexts: ascending, `[C]`. losses: nats per token, float64 `[N, C]`. texts: the text of each window, `[N]`.
    """

    contexts: tuple[int, ...]
    losses: np.ndarray
    texts: tuple[int, ...]

    def means(self) -> dict[int, float]:
        """Context -> mean loss over windows."""
        return dict(zip(self.contexts, self.losses.mean(axis=0).tolist(), strict=True))

    def gain(self, most_near: int) -> Gain:
        """Saving of the longest context over the longest one of at most `most_near` tokens, paired by window."""
        near = max(
            place for place, context in enumerate(self.contexts[:-1]) if not place or context <= most_near
        )
        saved = self.losses[:, near] - self.losses[:, -1]
        mean, low, high = bootstrap_mean(saved, groups=self.texts)
        return Gain(self.contexts[near], self.contexts[-1], mean, low, high, len({*self.texts}))


def read_curves(rows: Sequence[Mapping[str, Any]]) -> Curves:
    """The curves of an evaluation's rows. Args: rows, of the task `context_curve`: one per doubling of one window."""
    windows: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        windows.setdefault(row["example"], []).append(row)
    parts = [sorted(part, key=lambda row: row["context_start"]) for part in windows.values()]
    losses = [[part[0]["nats_before"], *(row["nats"] for row in part)] for part in parts]
    contexts = (parts[0][0]["context_start"], *(row["context_stop"] for row in parts[0]))
    return Curves(contexts, np.array(losses, dtype=np.float64), tuple(part[0]["text"] for part in parts))
