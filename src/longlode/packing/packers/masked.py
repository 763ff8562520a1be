"""The packer `masked`: packed documents that count in the loss as if each had its own row."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from longlode.packing.packers.base import Order, Packer, PackingReport, Piece, Schedule, StepRows
from longlode.packing.packers.best_fit import best_fit_rows
from longlode.packing.packers.rows import ShuffledRows


@dataclass(frozen=True, kw_only=True)
class MaskedPacker(Packer):
    """Rows of `best_fit` in which every piece has equal weight in the loss, whatever its length.

    The loss of a step is the mean over its documents of their mean losses, as with one document per row. Plain
    packing averages over tokens instead, where short answers hardly count. Needs documents that do not attend to each
    other (`packed=True`). Source: masked sequence packing, Liu et al. 2024, "World model on million-length video and
    language", arXiv 2402.08268, section 4.2.
    """

    name: ClassVar[str] = "masked"
    needs_isolation: ClassVar[bool] = True

    def plan(self, lengths: np.ndarray, *, length: int, batch_size: int, order: Order) -> Schedule:
        """See `Packer.plan`."""
        rows = ShuffledRows(best_fit_rows(lengths, length), lengths, length, batch_size, order)
        return _EqualPieces(rows, lengths)


class _EqualPieces(Schedule):
    """Schedule whose pieces have the weight one over the number of their labels."""

    def __init__(self, schedule: Schedule, lengths: np.ndarray) -> None:
        self._schedule, self._lengths, self.num_rows = schedule, lengths, schedule.num_rows

    def step(self, index: int) -> StepRows:
        found = self._schedule.step(index)
        return StepRows([[self._weighed(piece) for piece in row] for row in found.rows], found.length)

    def report(self) -> PackingReport:
        return self._schedule.report()

    def _weighed(self, piece: Piece) -> Piece:
        # The last token of a document has no label; that of a piece continued in another row has one.
        num_labels = piece.stop - piece.start - (piece.stop == self._lengths[piece.document])
        return replace(piece, weight=1.0 / max(1, int(num_labels)))
