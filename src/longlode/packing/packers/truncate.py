"""The packer `truncate`: one document per row, cut off at the row length."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longlode.packing.packers.base import Order, Packer, Schedule, check_length
from longlode.packing.packers.rows import ShuffledRows, TabledRows


@dataclass(frozen=True, kw_only=True)
class TruncatePacker(Packer):
    """One document per row: its first `length` tokens, and padding after a shorter one.

    Documents are never joined or continued, at the cost of padding. Documents without a label (fewer than 2 tokens) are
    left out.
    """

    name: ClassVar[str] = "truncate"

    def plan(self, lengths: np.ndarray, *, length: int, batch_size: int, order: Order) -> Schedule:
        """See `Packer.plan`."""
        check_length(length)
        documents = np.flatnonzero(lengths >= 2)
        rows = TabledRows(
            documents,
            np.zeros(len(documents), dtype=np.int64),
            np.minimum(lengths[documents], length),
            np.arange(len(documents) + 1),
        )
        return ShuffledRows(rows, lengths, length, batch_size, order)
