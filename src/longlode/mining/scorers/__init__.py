"""scorers: one file per scorer, found automatically; a new one subclasses `base.Scorer` and sets its `name`.

May import: core, corpus, `mining.requests`, the files of mining that do not import the engine. Start reading:
`base.py`, then `pairwise.py`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from longlode.core.plugins import Registry
from longlode.mining.extras import ExtraColumn
from longlode.mining.scorers.base import (
    MAX_SEGMENTS,
    DocumentScore,
    NoOptions,
    Scorer,
    SegmentedDocument,
    SegmentOptions,
)

SCORERS: Registry[Scorer] = Registry(
    "scorer",
    Scorer,  # type: ignore[type-abstract] # the base of all, which is never made
    package=__name__,
    group="longlode.scorers",
)
"""Scorers by name, as `--scorer` takes them: longlode's, those of entry points, and `package.module:Class`."""


def make_scorer(
    name: str,
    *,
    pairs: int | Literal["default"] | None = "default",
    options: Mapping[str, Any] | None = None,
) -> Scorer:
    """A scorer by name or address, as of `SCORERS`.

    Args: the others as of `Scorer`.
    Raises: ConfigError that lists the names for an unknown one, or its options with types and defaults; BackendError
      when its package does not load.
    """
    return SCORERS.get(name)(pairs=pairs, options=options)


__all__ = [
    "MAX_SEGMENTS",
    "SCORERS",
    "DocumentScore",
    "ExtraColumn",
    "NoOptions",
    "Scorer",
    "SegmentOptions",
    "SegmentedDocument",
    "make_scorer",
]
