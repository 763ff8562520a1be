"""The packer `concat`: documents end to end, cut where a row is full."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longlode.packing.packers.base import Order, Packer, Piece, Schedule, check_length
from longlode.packing.packers.rows import Rows, ShuffledRows


@dataclass(frozen=True, kw_only=True)
class ConcatPacker(Packer):
    """Documents end to end in their order, cut every `length` tokens; an incomplete last row is left out.

    No padding, and a document is split wherever a row happens to end. Source: GPT-3, arXiv 2005.14165, appendix B.
    """

    name: ClassVar[str] = "concat"

    def plan(self, lengths: np.ndarray, *, length: int, batch_size: int, order: Order) -> Schedule:
        """See `Packer.plan`."""
        return ShuffledRows(ConcatRows(lengths, length), lengths, length, batch_size, order)


class ConcatRows(Rows):
    """Row i holds the tokens i * length to (i + 1) * length of all documents; nothing is stored per row."""

    def __init__(self, lengths: np.ndarray, length: int) -> None:
        """Args: lengths, int64 `[N]`; length, tokens of a row. Raises: ConfigError for a length below 2."""
        check_length(length)
        self.length = length
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self.num_tokens = int(self._ends[-1]) if len(lengths) else 0
        self.num_rows = self.num_tokens // length

    def row(self, index: int) -> list[Piece]:
        """Return the pieces of a row."""
        start, stop = index * self.length, (index + 1) * self.length
        document = int(np.searchsorted(self._ends, start, side="right"))
        pieces = []
        while start < stop:
            end = int(self._ends[document])
            first = int(self._ends[document - 1]) if document else 0
            until = min(end, stop)
            if until > start:
                pieces.append(Piece(document, start - first, until - first))
            start = until
            document += 1
        return pieces

    def pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cut the whole stream at the ends of documents and of rows."""
        stop = self.num_rows * self.length
        cuts = np.union1d(self._ends[self._ends < stop], np.arange(0, stop + 1, self.length))
        starts, stops = cuts[:-1], cuts[1:]
        documents = np.searchsorted(self._ends, starts, side="right")
        first = np.concatenate([[0], self._ends])[documents] if len(documents) else starts
        return documents, starts - first, stops - first
