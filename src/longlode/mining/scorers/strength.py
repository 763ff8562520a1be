"""`strength`: mean dependency strength over the sampled pairs, a baseline without distance and specificity."""

from typing import ClassVar

import numpy as np

from longlode.mining import dependency
from longlode.mining.scorers.pair_mean import PairMeanScorer


class StrengthScorer(PairMeanScorer):
    """Score = mean DST; free of the length bias of a sum over pairs."""

    name: ClassVar[str] = "strength"
    version: ClassVar[int] = 2

    def values(self, ppl_alone: np.ndarray, ppl_given: np.ndarray) -> np.ndarray:
        """DST of each pair."""
        return dependency.strength(ppl_alone, ppl_given)
