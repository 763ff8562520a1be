"""scorers: one file each; a new one subclasses `base.Scorer` and adds a line to SCORERS.

May import: core, corpus, the files of mining that know no engine. Start reading: `base.py`, then
`pairwise.py`.
"""

from typing import Literal

from longlode.core.errors import ConfigError
from longlode.mining.scorers.attention_mass import AttentionMassScorer
from longlode.mining.scorers.base import (
    MAX_SEGMENTS,
    DocumentScore,
    PairPlan,
    Scorer,
    SegmentedDocument,
)
from longlode.mining.scorers.context_gain import ContextGainScorer
from longlode.mining.scorers.default import DefaultScorer
from longlode.mining.scorers.gzip import GzipScorer
from longlode.mining.scorers.order import OrderScorer
from longlode.mining.scorers.overlap import OverlapScorer
from longlode.mining.scorers.paper import PaperScorer
from longlode.mining.scorers.profile import ProfileScorer
from longlode.mining.scorers.release import ReleaseScorer
from longlode.mining.scorers.strength import StrengthScorer

SCORERS: dict[str, type[Scorer]] = {
    kind.name: kind
    for kind in (
        DefaultScorer,
        OrderScorer,
        ProfileScorer,
        PaperScorer,
        ReleaseScorer,
        StrengthScorer,
        ContextGainScorer,
        AttentionMassScorer,
        OverlapScorer,
        GzipScorer,
    )
}
"""Scorers by name, as `--scorer` takes them."""


def make_scorer(
    name: str,
    *,
    pairs: int | Literal["default"] | None = "default",
    max_segments: int = MAX_SEGMENTS,
) -> Scorer:
    """A scorer by name. Args: as `Scorer`. Raises: ConfigError that lists the names for an unknown
    one.
    """
    if name not in SCORERS:
        raise ConfigError(f"there is no scorer {name!r}; choose one of {', '.join(sorted(SCORERS))}.")
    return SCORERS[name](pairs=pairs, max_segments=max_segments)


__all__ = [
    "MAX_SEGMENTS",
    "SCORERS",
    "DocumentScore",
    "PairPlan",
    "Scorer",
    "SegmentedDocument",
    "make_scorer",
]
