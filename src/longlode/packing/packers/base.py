"""Interface of packers: document lengths in, the rows of every training step out, with order and loss weights."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from longlode.core.errors import ConfigError
from longlode.core.options import build
from longlode.core.plugins import Registry


@dataclass(frozen=True)
class Piece:
    """Tokens start <= t < stop of one document (an index into the packer's `lengths`).

    weight: weight of each of its labels in the loss, relative to other pieces.
    """

    document: int
    start: int
    stop: int
    weight: float = 1.0


@dataclass(frozen=True)
class Insertion:
    """A token put behind every `size` tokens of a piece, counted from the piece's first; no label asks for it."""

    token: int
    size: int

    def num_places(self, num_tokens: int) -> int:
        """Return the places that a piece of `num_tokens` takes."""
        return num_tokens + num_tokens // self.size


@dataclass(frozen=True)
class StepRows:
    """The rows of one step: the pieces of each, in order, none empty; rows shorter than `length` end in padding.

    inserted: what stands between the tokens of every piece, and counts in `length`; None: nothing.
    """

    rows: list[list[Piece]]
    length: int
    inserted: Insertion | None = None


@dataclass(frozen=True, kw_only=True)
class PackingReport:
    """Statistics of one epoch of a packer.

    num_documents: documents given. num_rows: rows made. num_tokens: tokens of the documents, eos included. cut_tokens:
    tokens in no row. padding_tokens: positions of rows without a token. num_split_documents: documents with tokens in
    several rows. mean_context_tokens: mean number of tokens of the same document before a token in its row.
    """

    num_documents: int
    num_rows: int
    num_tokens: int
    cut_tokens: int
    padding_tokens: int
    num_split_documents: int
    mean_context_tokens: float

    def in_words(self) -> str:
        """Format the report as one line of text."""
        places = self.num_tokens - self.cut_tokens + self.padding_tokens
        return (
            f"{self.num_rows:,} rows per epoch, {self.padding_tokens / max(1, places):.1%} padding, "
            f"{self.cut_tokens / max(1, self.num_tokens):.1%} of the tokens cut, "
            f"{self.num_split_documents / max(1, self.num_documents):.1%} of the documents split, mean context "
            f"{self.mean_context_tokens:,.0f} tokens"
        )


class Schedule(ABC):
    """The rows of every step of a run, in an order that is a pure function of the step.

    num_rows: rows per epoch; if 0, `step` must not be called.
    """

    num_rows: int

    @abstractmethod
    def step(self, index: int) -> StepRows:
        """Return the rows of a step, from 0, without end. Every step costs the same."""

    @abstractmethod
    def report(self) -> PackingReport:
        """Return the statistics of an epoch."""


@dataclass(frozen=True, kw_only=True)
class Packer(ABC):
    """Base class of packers. The fields of a subclass, a frozen dataclass, are its options: typed, with defaults."""

    name: ClassVar[str]
    needs_isolation: ClassVar[bool] = False
    """True if its rows are correct only when documents in one row do not attend to each other (`packed=True`)."""
    needs_joint_documents: ClassVar[bool] = False
    """True if its rows have their effect only when documents in one row see each other (`packed=False`)."""
    mixes_by_steps: ClassVar[bool] = False
    """True if all rows of a step must come from one plan, so that a mixture deals out steps instead of rows."""

    def for_heldout(self) -> "Packer | str":
        """Return the packer of held-out rows: `concat`, so that losses of several packers can be compared."""
        return "concat"

    def for_documents(self, source: "DocumentSource") -> "Packer":
        """Return the packer to plan these documents with: itself, unless it needs more than their lengths."""
        return self

    @abstractmethod
    def plan(self, lengths: np.ndarray, *, length: int, batch_size: int, order: "Order") -> Schedule:
        """Arrange documents in rows.

        Args:
          lengths: int64 `[N]`, tokens of each document, its eos included.
          length: tokens of a full row. batch_size: full rows per step, so a step has length * batch_size tokens.
          order: the source of all randomness.
        Raises: ConfigError for invalid settings. Too few documents give a schedule without rows.
        """


@dataclass(frozen=True, eq=False)
class DocumentSource:
    """Documents for packers that look into them.

    documents: their numbers in the shards, ascending, int64 `[N]`; a packer calls them 0 to N - 1. num_documents: of
    the shards. tokens: function from 0 to N - 1 to the tokens of a document, int `[T]`, eos last. fingerprint: of the
    shards. store: folder for what is worth keeping.
    """

    documents: np.ndarray
    num_documents: int
    tokens: Callable[[int], np.ndarray]
    fingerprint: str
    store: Path


@dataclass(frozen=True)
class Order:
    """Source of random orders, besides the epoch: the seed of the run and the fingerprint of its data."""

    seed: int
    fingerprint: str


PACKERS: Registry[Packer] = Registry(
    "packer",
    Packer,  # type: ignore[type-abstract]
    package="longlode.packing.packers",
    group="longlode.packers",
)
"""Packers by name; see `core.plugins` for adding others."""


def make_packer(name: str, options: Mapping[str, Any] | None = None) -> Packer:
    """Make the packer called `name` with these options.

    Raises: ConfigError for an unknown name, an unknown option, or a value that the packer refuses.
    """
    return build(PACKERS.get(name), options, f"the packer {name!r}")


def check_length(length: int) -> None:
    """Check the row length in tokens. Raises: ConfigError for rows without a label (fewer than 2 tokens)."""
    if length < 2:
        raise ConfigError(f"length is {length}; expected at least 2 tokens.")
