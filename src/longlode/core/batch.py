"""The batch of token rows that packing produces and training reads."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Batch:
    """Token rows ready for a training step; plain numpy, so that packing needs no torch and training no packing.

    tokens: int64 `[B, T]`.
    labels: int64 `[B, T]`; `labels[b, t]` is the token that should follow `tokens[b, t]`, -100 where nothing is
      asked (padding, the last token of a packed document).
    cu_seqlens: int32 `[N + 1]` offsets of the packed documents, or None; given only with B = 1.
    weights: float32 `[B, T]`, how much the loss of each label counts, or None: all the same.
    """

    tokens: np.ndarray
    labels: np.ndarray
    cu_seqlens: np.ndarray | None = None
    weights: np.ndarray | None = None

    @property
    def num_tokens(self) -> int:
        """Number of positions that carry a label (not -100)."""
        return int((self.labels != -100).sum())

    @property
    def total_weight(self) -> float:
        """Divisor of the sum of weighted losses: the sum of the labels' weights, or their number without weights."""
        if self.weights is None:
            return self.num_tokens
        return float(self.weights[self.labels != -100].sum(dtype=np.float64))
