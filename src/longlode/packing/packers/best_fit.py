"""The packer `best_fit`: whole documents in rows, with as few cuts as possible."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longlode.packing.packers.base import Order, Packer, Schedule, check_length
from longlode.packing.packers.rows import ShuffledRows, TabledRows


@dataclass(frozen=True, kw_only=True)
class BestFitPacker(Packer):
    """Best-fit decreasing: pieces, longest first, go to the row with the least free space that suffices.

    Only documents longer than a row are split; no token is lost, and rows end in a little padding.
    Source: best-fit decreasing for documents, Ding et al. 2024, "Fewer
    truncations improve language modeling", arXiv 2404.10830.
    """

    name: ClassVar[str] = "best_fit"

    def plan(self, lengths: np.ndarray, *, length: int, batch_size: int, order: Order) -> Schedule:
        """See `Packer.plan`. Cost: one step of Python per piece."""
        return ShuffledRows(best_fit_rows(lengths, length), lengths, length, batch_size, order)


def best_fit_rows(lengths: np.ndarray, length: int) -> TabledRows:
    """Fill rows by best-fit decreasing; of rows with equal free space, the last filled is taken."""
    check_length(length)
    documents, starts, stops = _pieces(lengths, length)
    sizes = stops - starts
    longest_first = np.argsort(-sizes, kind="stable")
    row_of = np.zeros(len(sizes), dtype=np.int64)
    rows_with_room: dict[int, list[int]] = {}
    # Bit r of this big integer is set if some row has exactly r tokens free. The tightest row that fits a piece is the
    # lowest set bit at or above the piece's size: (bits >> size) & -(bits >> size), a few operations on big integers.
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
    """Cut documents into pieces of at most `length` tokens; return document, start, stop, int64 `[P]` each."""
    counts = -(-lengths // length)
    documents = np.repeat(np.arange(len(lengths)), counts)
    # The number of a piece within its document: its index minus the index of the document's first piece.
    nth = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = nth * length
    return documents, starts, np.minimum(starts + length, lengths[documents])
