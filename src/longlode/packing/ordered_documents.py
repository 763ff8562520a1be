"""Rows cut from documents in a given order, as packers that order documents make them."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from longlode.packing.packers.base import Order, Packer, Piece, Schedule, check_length
from longlode.packing.packers.concat import ConcatRows
from longlode.packing.packers.rows import Rows, ShuffledRows


@dataclass(frozen=True, kw_only=True, eq=False)
class OrderedDocuments(Packer):
    """Documents end to end along a walk, int64 `[kept]`, cut where a row is full; others are left out."""

    name: ClassVar[str] = "ordered_documents"
    needs_joint_documents: ClassVar[bool] = True
    walk: np.ndarray

    def plan(self, lengths: np.ndarray, *, length: int, batch_size: int, order: Order) -> Schedule:
        """See `Packer.plan`."""
        check_length(length)
        return ShuffledRows(_WalkRows(lengths, length, self.walk), lengths, length, batch_size, order)


class _WalkRows(Rows):
    """Rows of `length` tokens along the walk, an incomplete last one left out."""

    def __init__(self, lengths: np.ndarray, length: int, walk: np.ndarray) -> None:
        self._rows, self._walk = ConcatRows(lengths[walk], length), walk
        self.num_rows = self._rows.num_rows

    def row(self, index: int) -> list[Piece]:
        return [replace(piece, document=int(self._walk[piece.document])) for piece in self._rows.row(index)]

    def pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        documents, starts, stops = self._rows.pieces()
        return self._walk[documents], starts, stops
