"""Rows of one length in a random order, shared by most packers."""

import hashlib
from abc import ABC, abstractmethod
from functools import lru_cache

import numpy as np

from longlode.packing.packers.base import Order, PackingReport, Piece, Schedule, StepRows


class Rows(ABC):
    """The rows of an epoch, not yet in an order."""

    num_rows: int

    @abstractmethod
    def row(self, index: int) -> list[Piece]:
        """Return the pieces of a row, in order; no piece is empty."""

    @abstractmethod
    def pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return all pieces of all rows: document, start, stop, each int64 `[P]`."""


class TabledRows(Rows):
    """Rows stored as a table: pieces in the order of the rows, and the first piece of each row."""

    def __init__(
        self, documents: np.ndarray, starts: np.ndarray, stops: np.ndarray, first_pieces: np.ndarray
    ) -> None:
        """Args: documents, starts, stops, int64 `[P]`; first_pieces, int64 `[num_rows + 1]`, offsets into them."""
        self.num_rows = len(first_pieces) - 1
        self._documents, self._starts, self._stops = documents, starts, stops
        self._first = first_pieces

    def row(self, index: int) -> list[Piece]:
        """Return the pieces of a row."""
        where = slice(int(self._first[index]), int(self._first[index + 1]))
        columns = (self._documents[where], self._starts[where], self._stops[where])
        return [Piece(*numbers) for numbers in zip(*(column.tolist() for column in columns), strict=True)]

    def pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Rows.pieces`."""
        return self._documents, self._starts, self._stops


class ShuffledRows(Schedule):
    """Schedule of every row once per epoch, in a new order per epoch; a step may reach into the next epoch."""

    def __init__(self, rows: Rows, lengths: np.ndarray, length: int, batch_size: int, order: Order) -> None:
        """Args: rows, of at most `length` tokens; lengths, of the documents; the rest as in `Packer.plan`."""
        self.rows, self.num_rows = rows, rows.num_rows
        self._lengths, self._length, self._batch_size, self._order = lengths, length, batch_size, order
        # A step covers at most two epochs, unless an epoch has fewer rows than a step.
        self._of_epoch = lru_cache(maxsize=2)(self._row_order)

    def step(self, index: int) -> StepRows:
        """Return the `batch_size` rows from index * batch_size on, counted over all epochs."""
        rows = []
        for place in range(index * self._batch_size, (index + 1) * self._batch_size):
            epoch, offset = divmod(place, self.num_rows)
            rows.append(self.rows.row(int(self._of_epoch(epoch)[offset])))
        return StepRows(rows, self._length)

    def report(self) -> PackingReport:
        """See `Schedule.report`."""
        return report_of(*self.rows.pieces(), self._lengths, self.num_rows, self.num_rows * self._length)

    def _row_order(self, epoch: int) -> np.ndarray:
        return row_order(self.num_rows, self._order.seed, epoch, self._order.fingerprint)


def row_order(num_rows: int, seed: int, epoch: int, fingerprint: str) -> np.ndarray:
    """Draw the order of rows in an epoch: a permutation, int64 `[num_rows]`, the same on every machine.

    Rows are sorted by the raw 64-bit output of Philox4x64-10 under a key hashed from the arguments. numpy
    promises only a bit generator's raw stream never to change; `Generator.permutation` may.
    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    return np.argsort(
        raw_numbers(num_rows, f"longlode row order\0{seed}\0{epoch}\0{fingerprint}"), kind="stable"
    )


def raw_numbers(count: int, key: str) -> np.ndarray:
    """Draw `count` random numbers below 2**64 under a key; uint64 `[count]`, the same on every machine."""
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    numbers: np.ndarray = np.random.Philox(key=int.from_bytes(digest, "big")).random_raw(count)
    return numbers


def report_of(
    documents: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    lengths: np.ndarray,
    num_rows: int,
    num_places: int,
) -> PackingReport:
    """Compute the statistics of `num_rows` rows with `num_places` positions in all."""
    sizes = stops - starts
    held, total = int(sizes.sum()), int(lengths.sum())
    in_pieces = np.bincount(documents, minlength=len(lengths))
    return PackingReport(
        num_documents=len(lengths),
        num_rows=num_rows,
        num_tokens=total,
        cut_tokens=total - held,
        padding_tokens=num_places - held,
        num_split_documents=int((in_pieces > 1).sum()),
        # The n tokens of a piece have 0, 1, ..., n - 1 tokens of their document before them, n (n - 1) / 2 in sum.
        mean_context_tokens=float((sizes * (sizes - 1) / 2).sum() / max(1, held)),
    )
