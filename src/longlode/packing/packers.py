"""How packed documents are cut into rows of one length."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from longlode.core.errors import ConfigError


@dataclass(frozen=True)
class Piece:
    """Tokens start <= t < stop of one document (an index into the lengths that the packer was given)."""

    document: int
    start: int
    stop: int


class Packer(Protocol):
    """Cuts documents into `num_rows` rows; the loader asks for rows in any order."""

    num_rows: int

    def row(self, index: int) -> list[Piece]:
        """The pieces of a row, in order; never an empty piece."""
        ...


class ConcatPacker:
    """Documents end to end, cut every `length` tokens; the tail that does not fill a row is left out.

    lengths: int64 `[N]`, tokens of each document. length: tokens of a row.
    """

    def __init__(self, lengths: np.ndarray, length: int) -> None:
        """Raises: ConfigError for a length below 2, which would ask for nothing."""
        if length < 2:
            raise ConfigError(f"length is {length}; expected at least 2 tokens.")
        self.length = length
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self.num_tokens = int(self._ends[-1]) if len(lengths) else 0
        self.num_rows = self.num_tokens // length

    def row(self, index: int) -> list[Piece]:
        """The pieces of tokens index * length to (index + 1) * length of all documents."""
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
