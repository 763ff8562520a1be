"""Several scores folders side by side: which documents do they share, and do their scorers rank them alike?"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa

from longlode.core.ranking import spearman
from longlode.report.scores import identities, ok_scores

MAX_FOLDERS = 8
MIN_SHARED = 3
"""Documents below which a rank correlation says nothing."""


@dataclass(frozen=True)
class Agreement:
    """Two folders: their names, how many documents both scored, and the rank correlation of the scores."""

    a: str
    b: str
    num_shared: int
    spearman: float | None


@dataclass(frozen=True)
class Together:
    """num_documents: different documents over all folders, however often each was read."""

    num_documents: int
    pairs: list[Agreement]


def together(names: Sequence[str], tables: Sequence[pa.Table]) -> Together | None:
    """Compare scores folders by the documents (file, row, id) that they share; None for fewer than two."""
    if len(tables) < 2:
        return None
    known, scored = set[tuple[str, int, str]](), []
    for table in tables:
        keys = identities(table)
        known.update(keys)
        good, score = ok_scores(table)
        scored.append({keys[place]: float(score[place]) for place in good.tolist()})
    named = list(zip(names, scored, strict=True))[:MAX_FOLDERS]
    pairs = [_agreement(a, b, one, other) for (a, one), (b, other) in combinations(named, 2)]
    return Together(len(known), [pair for pair in pairs if pair.num_shared])


def _agreement(
    a: str, b: str, one: dict[tuple[str, int, str], float], other: dict[tuple[str, int, str], float]
) -> Agreement:
    shared = [key for key in one if key in other]
    first, second = (np.array([scores[key] for key in shared]) for scores in (one, other))
    return Agreement(a, b, len(shared), spearman(first, second) if len(shared) >= MIN_SHARED else None)
