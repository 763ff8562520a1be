"""The packer `landmark`: rows of another packer with a landmark token at the end of every block."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longlode.core.errors import ConfigError
from longlode.packing.packers.base import (
    Insertion,
    Order,
    Packer,
    PackingReport,
    Schedule,
    StepRows,
    make_packer,
)


@dataclass(frozen=True, kw_only=True)
class LandmarkPacker(Packer):
    """Rows of `rows` with a landmark after every `block_size - 1` tokens of a piece, for the mixer `landmark`.

    A landmark is never asked for, and is asked for the token after it, so all labels of a document stay. A row has
    fewer tokens of documents, so that it is no longer than asked. Blocks begin where a piece begins, which needs
    documents that do not see each other (`packed=True`). Source: landmark attention, arXiv 2305.16300.

    token: id of a token without other use. block_size: that of the mixer, the landmark included. rows: the packer that
    arranges the documents, with its default options; decompose and related are not for this.
    """

    name: ClassVar[str] = "landmark"
    needs_isolation: ClassVar[bool] = True
    token: int
    block_size: int = 64
    rows: str = "concat"

    def __post_init__(self) -> None:
        """Check the options. Raises: ConfigError."""
        inner = make_packer(self.rows)
        if self.token < 0 or self.block_size < 2 or inner.mixes_by_steps or inner.needs_joint_documents:
            raise ConfigError(
                f"the packer 'landmark': token is {self.token}, block_size {self.block_size} and rows {self.rows!r}; "
                "expected at least 0, at least 2, and a packer such as concat or best_fit."
            )

    def for_heldout(self) -> Packer:
        """See `Packer.for_heldout`: with landmarks, without which the model would take text for them."""
        return LandmarkPacker(token=self.token, block_size=self.block_size)

    def plan(self, lengths: np.ndarray, *, length: int, batch_size: int, order: Order) -> Schedule:
        """See `Packer.plan`."""
        # The most tokens n for which n + n // (block_size - 1) places are no more than the length.
        tokens = length - (length + 1) // self.block_size
        rows = make_packer(self.rows).plan(lengths, length=tokens, batch_size=batch_size, order=order)
        return _WithLandmarks(rows, length, Insertion(self.token, self.block_size - 1))


class _WithLandmarks(Schedule):
    """A schedule whose rows leave room for what is inserted. Its report is on the tokens of documents."""

    def __init__(self, schedule: Schedule, length: int, inserted: Insertion) -> None:
        self._schedule, self._length, self._inserted = schedule, length, inserted
        self.num_rows = schedule.num_rows

    def step(self, index: int) -> StepRows:
        return StepRows(self._schedule.step(index).rows, self._length, self._inserted)

    def report(self) -> PackingReport:
        return self._schedule.report()
