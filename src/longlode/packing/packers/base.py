"""What a packer is: documents in, the rows of every training step out, with their lengths, order and loss weights."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from longlode.core.errors import ConfigError
from longlode.core.options import build
from longlode.core.plugins import Registry


@dataclass(frozen=True)
class Piece:
    """Tokens start <= t < stop of one document (an index into the lengths that the packer was given).

    weight: of the loss of each of its labels, relative to that of other pieces.
    """

    document: int
    start: int
    stop: int
    weight: float = 1.0


@dataclass(frozen=True)
class StepRows:
    """The rows of one step: the pieces of each, in order, none empty; rows shorter than `length` end in padding."""

    rows: list[list[Piece]]
    length: int


@dataclass(frozen=True, kw_only=True)
class PackingReport:
    """What a packer makes of its documents in one epoch.

    num_documents: given. num_rows: made. num_tokens: of the documents, each one's eos included. cut_tokens: those in no
    row. padding_tokens: places of rows that hold no token. num_split_documents: with tokens in several rows.
    mean_context_tokens: over the tokens in rows, how many of the same document stand before one in its row.
    """

    num_documents: int
    num_rows: int
    num_tokens: int
    cut_tokens: int
    padding_tokens: int
    num_split_documents: int
    mean_context_tokens: float

    def in_words(self) -> str:
        """One line for a person."""
        places = self.num_tokens - self.cut_tokens + self.padding_tokens
        return (
            f"{self.num_rows:,} rows per epoch, {self.padding_tokens / max(1, places):.1%} padding, "
            f"{self.cut_tokens / max(1, self.num_tokens):.1%} of the tokens cut, "
            f"{self.num_split_documents / max(1, self.num_documents):.1%} of the documents split, mean context "
            f"{self.mean_context_tokens:,.0f} tokens"
        )


class Schedule(ABC):
    """The rows of every step of a run, in an order that is a pure function of the step.

    num_rows: rows per epoch; without any, no step can be asked for.
    """

    num_rows: int

    @abstractmethod
    def step(self, index: int) -> StepRows:
        """The rows of a step, from 0, without end. A far step costs no more than a near one."""

    @abstractmethod
    def report(self) -> PackingReport:
        """What became of the documents."""


@dataclass(frozen=True, kw_only=True)
class Packer(ABC):
    """Makes schedules. The fields of a subclass, a frozen dataclass too, are its options: typed, with defaults."""

    name: ClassVar[str]
    needs_isolation: ClassVar[bool] = False
    """Whether its rows mean what they should only if the documents in one row do not see each other."""

    @abstractmethod
    def plan(self, lengths: np.ndarray, *, length: int, batch_size: int, order: "Order") -> Schedule:
        """Arrange documents in rows.

        Args:
          lengths: int64 `[N]`, tokens of each document, its eos included.
          length: tokens of a full row. batch_size: full rows per step; length * batch_size tokens are a step's.
          order: the source of everything that is drawn.
        Raises: ConfigError for settings that make no sense together. Too few documents give a schedule without rows.
        """


@dataclass(frozen=True)
class Order:
    """What decides a random order besides the epoch: the seed of the run and the name of its data."""

    seed: int
    fingerprint: str


PACKERS: Registry[Packer] = Registry(
    "packer",
    Packer,  # type: ignore[type-abstract]
    package="longlode.packing.packers",
    group="longlode.packers",
)
"""Packers by name; `core.plugins` says how others come in."""


def make_packer(name: str, options: Mapping[str, Any] | None = None) -> Packer:
    """The packer called `name` with these options.

    Raises: ConfigError for a name that nobody has, an option that the packer does not have, or a value that it does
      not take.
    """
    return build(PACKERS.get(name), options, f"the packer {name!r}")


def check_length(length: int) -> None:
    """Raises: ConfigError for rows that would hold no label."""
    if length < 2:
        raise ConfigError(f"length is {length}; expected at least 2 tokens.")
