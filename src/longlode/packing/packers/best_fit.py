"""Whole documents in rows, with as little cutting as can be."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longlode.packing.packers.base import Order, Packer, Schedule, check_length
from longlode.packing.packers.rows import ShuffledRows, TabledRows


@dataclass(frozen=True, kw_only=True)
class BestFitPacker(Packer):
    """Only documents longer than a row are split; pieces go, longest first, where the least room is left that fits.

    No token is cut; rows end in a little padding. Source: best-fit decreasing for documents, Ding et al. 2024, "Fewer
    truncations improve language modeling", arXiv 2404.10830.
    """

    name: ClassVar[str] = "best_fit"

    def plan(self, lengths: np.ndarray, *, length: int, batch_size: int, order: Order) -> Schedule:
        """As said in `Packer`. Cost: one step of Python per piece."""
        return ShuffledRows(best_fit_rows(lengths, length), lengths, length, batch_size, order)


def best_fit_rows(lengths: np.ndarray, length: int) -> TabledRows:
    """Rows by best-fit decreasing; of two rows with the same room, the one that got its last piece later."""
    check_length(length)
    documents, starts, stops = _pieces(lengths, length)
    sizes = stops - starts
    longest_first = np.argsort(-sizes, kind="stable")
    row_of = np.zeros(len(sizes), dtype=np.int64)
    rows_with_room: dict[int, list[int]] = {}
    # Bit r is set where some row has room for r tokens more: the smallest room that fits is the lowest set bit from the
    # size on, which big integers find at once.
    rooms = num_rows = 0
    for piece, size in zip(longest_first.tolist(), sizes[longest_first].tolist(), strict=True):
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = rows_with_room[room].pop()
            if not rows_with_room[room]:
                rooms &= ~(1 << room)
        else:
            room, row = length, num_rows
            num_rows += 1
        row_of[piece] = row
        if room > size:
            rows_with_room.setdefault(room - size, []).append(row)
            rooms |= 1 << (room - size)
    by_row = np.lexsort((-sizes, row_of))
    first_pieces = np.searchsorted(row_of[by_row], np.arange(num_rows + 1))
    return TabledRows(documents[by_row], starts[by_row], stops[by_row], first_pieces)


def _pieces(lengths: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents cut into pieces of at most `length` tokens: document, start, stop."""
    counts = -(-lengths // length)
    documents = np.repeat(np.arange(len(lengths)), counts)
    # The number of a piece within its document: places minus the place of the document's first piece.
    nth = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = nth * length
    return documents, starts, np.minimum(starts + length, lengths[documents])
