"""One document per row, what is too long cut off."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longlode.packing.packers.base import Order, Packer, Schedule, check_length
from longlode.packing.packers.rows import ShuffledRows, TabledRows


@dataclass(frozen=True, kw_only=True)
class TruncatePacker(Packer):
    """One document per row: its first `length` tokens, and padding after a shorter one.

    Nothing is ever joined or continued, at the price of padding. Documents without a label (fewer than 2 tokens) are
    left out.
    """

    name: ClassVar[str] = "truncate"

    def plan(self, lengths: np.ndarray, *, length: int, batch_size: int, order: Order) -> Schedule:
        """As said in `Packer`."""
        check_length(length)
        documents = np.flatnonzero(lengths >= 2)
        rows = TabledRows(
            documents,
            np.zeros(len(documents), dtype=np.int64),
            np.minimum(lengths[documents], length),
            np.arange(len(documents) + 1),
        )
        return ShuffledRows(rows, lengths, length, batch_size, order)
