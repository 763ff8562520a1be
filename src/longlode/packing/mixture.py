"""Mixtures: the share of a run's tokens that each group of documents has.

A group is named by what its documents have in a column of the shards:

    books            the source "books"
    kind:novel       the value "novel" in the column `kind`, any column that `pack` carried
    score:0.5..      a number from 0.5 on in the column `score`; also score:0.2..0.5, num_tokens:..8192
    rest             all documents of no other group

A document is in the first group that it fits, and in none if it fits none: then it is not read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from longlode.core.errors import ConfigError, InputError
from longlode.core.mixes import parse_mix

REST = "rest"
_BAND = re.compile(r"(?P<low>[^.]*(?:\.\d[^.]*)?)\.\.(?P<high>.*)")
_MAX_NAMED = 12


class Columns(Protocol):
    """Documents with columns, such as `Shards`."""

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Columns and their types."""

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column of all documents."""


@dataclass(frozen=True)
class Mixture:
    """Shares of tokens by group, and how they change.

    shares: weight of each group, scaled to add up to 1. epochs: most times that a group's documents are read; then its
    share goes to the others in proportion. None: a group that has been read begins again, in another order, and all
    shares hold to the end. changes: (step, shares) from which on other shares of the same groups hold.
    """

    shares: Mapping[str, float]
    epochs: float | None = None
    changes: tuple[tuple[int, Mapping[str, float]], ...] = ()

    def __post_init__(self) -> None:
        """Check and scale the shares. Raises: ConfigError for invalid weights, epochs, steps or unknown groups."""
        object.__setattr__(self, "shares", parse_mix(self.shares))
        changes = tuple((int(step), parse_mix(shares)) for step, shares in self.changes)
        object.__setattr__(self, "changes", changes)
        if self.epochs is not None and not self.epochs > 0:
            raise ConfigError(f"the mixture's epochs are {self.epochs}; expected a number above 0, or none.")
        steps = [step for step, _ in changes]
        if steps != sorted(set(steps)) or (steps and steps[0] < 0):
            raise ConfigError(f"the mixture changes at steps {steps}; expected ascending steps from 0 on.")
        for step, shares in changes:
            if unknown := sorted(set(shares) - set(self.shares)):
                raise ConfigError(
                    f"the mixture of step {step} names {unknown[0]!r}, which is none of its groups: "
                    f"{', '.join(self.shares)}. Name all groups in the first mixture, with weight 0 if need be."
                )

    @classmethod
    def parse(cls, text: str | Mapping[str, float], epochs: float | None = None) -> "Mixture":
        """Make one from "books=0.4,code=0.6" or from a table. Raises: ConfigError, as `core.mixes.parse_mix`."""
        return cls(parse_mix(text), epochs)


def group_documents(shards: Columns, documents: np.ndarray, names: list[str]) -> list[np.ndarray]:
    """Return the documents of each group, ascending: an array per name, each part of `documents`, int64.

    Raises: ConfigError for a column that the shards do not have; InputError for a group without documents.
    """
    free = np.ones(len(documents), dtype=bool)
    found: dict[str, np.ndarray] = {}
    for name in [name for name in names if name != REST] + [name for name in names if name == REST]:
        fitting = free if name == REST else free & _fits(shards, name)[documents]
        if not fitting.any():
            raise InputError(_no_documents(shards, name))
        found[name] = documents[fitting]
        free = free & ~fitting
    return [found[name] for name in names]


def _fits(shards: Columns, name: str) -> np.ndarray:
    """Return which documents of the shards a group's name describes, bool `[num_documents]`."""
    sources = shards.column("source")
    if (whole := _equals(sources, name)).any():
        return whole
    column, colon, value = name.partition(":")
    if not colon:
        return whole
    if column not in shards.columns:
        raise ConfigError(
            f"the mixture names {name!r}: the shards have no column {column!r}, nor the source {name!r}. Columns: "
            f"{', '.join(shards.columns)}."
        )
    values = shards.column(column)
    band = _BAND.fullmatch(value)
    is_number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    if band is None or not is_number:
        return _equals(values, value)
    return _within(values, name, band["low"], band["high"])


def _equals(values: pa.ChunkedArray, value: str) -> np.ndarray:
    as_text = values if pa.types.is_string(values.type) else pc.cast(values, pa.string())
    return np.asarray(pc.fill_null(pc.equal(as_text, value), False).to_numpy(), dtype=bool)


def _within(values: pa.ChunkedArray, name: str, low: str, high: str) -> np.ndarray:
    try:
        least, end = float(low or "-inf"), float(high or "inf")
    except ValueError:
        raise ConfigError(f"the mixture names {name!r}; expected COLUMN:LOW..HIGH in numbers.") from None
    numbers = pc.fill_null(pc.cast(values, pa.float64()), float("nan")).to_numpy()
    return np.asarray((numbers >= least) & (numbers < end))


def _no_documents(shards: Columns, name: str) -> str:
    column = name.partition(":")[0] if ":" in name else "source"
    column = column if column in shards.columns else "source"
    values = shards.column(column)
    if pa.types.is_string(values.type):
        named = [str(value) for value in pc.unique(values).to_pylist()]
        shown = ", ".join(named[:_MAX_NAMED]) + (
            f" and {len(named) - _MAX_NAMED} more" if len(named) > _MAX_NAMED else ""
        )
    else:
        ends = pc.min_max(values).as_py()
        shown = f"numbers from {ends['min']} to {ends['max']}"
    return (
        f"the mixture names {name!r}, and no document that is left for it fits. Column {column!r} holds: {shown}. "
        "Name groups that have documents; a document counts for the first group that it fits."
    )
