"""estimators: one file each; a new one subclasses `base.Estimator` and adds a line to ESTIMATORS.

May import: core, corpus, the files of mining that know no engine. Start reading: `base.py`, then
`pairwise.py`.
"""

from typing import Literal

from longlode.core.errors import ConfigError
from longlode.mining.estimators.attention_mass import AttentionMassEstimator
from longlode.mining.estimators.base import (
    MAX_SEGMENTS,
    DocumentScore,
    Estimator,
    PairPlan,
    SegmentedDocument,
)
from longlode.mining.estimators.context_gain import ContextGainEstimator
from longlode.mining.estimators.default import DefaultEstimator
from longlode.mining.estimators.gzip import GzipEstimator
from longlode.mining.estimators.order import OrderEstimator
from longlode.mining.estimators.overlap import OverlapEstimator
from longlode.mining.estimators.paper import PaperEstimator
from longlode.mining.estimators.release import ReleaseEstimator
from longlode.mining.estimators.strength import StrengthEstimator

ESTIMATORS: dict[str, type[Estimator]] = {
    kind.name: kind
    for kind in (
        DefaultEstimator,
        OrderEstimator,
        PaperEstimator,
        ReleaseEstimator,
        StrengthEstimator,
        ContextGainEstimator,
        AttentionMassEstimator,
        OverlapEstimator,
        GzipEstimator,
    )
}
"""Estimators by name, as `--estimator` takes them."""


def make_estimator(
    name: str,
    *,
    pairs: int | Literal["default"] | None = "default",
    max_segments: int = MAX_SEGMENTS,
) -> Estimator:
    """An estimator by name. Args: as `Estimator`. Raises: ConfigError that lists the names for an unknown
    one.
    """
    if name not in ESTIMATORS:
        raise ConfigError(f"there is no estimator {name!r}; choose one of {', '.join(sorted(ESTIMATORS))}.")
    return ESTIMATORS[name](pairs=pairs, max_segments=max_segments)


__all__ = [
    "ESTIMATORS",
    "MAX_SEGMENTS",
    "DocumentScore",
    "Estimator",
    "PairPlan",
    "SegmentedDocument",
    "make_estimator",
]
