"""`strength`: mean dependency strength over the sampled pairs, a baseline that knows neither distance nor
specificity.
"""

from typing import ClassVar

from longlode.mining.estimators.base import SegmentedDocument
from longlode.mining.estimators.pairwise import MeasuredPairs, PairwiseEstimator
from longlode.mining.uncertainty import mean_error


class StrengthEstimator(PairwiseEstimator):
    """Score = mean DST; free of the length bias of a sum over pairs."""

    name: ClassVar[str] = "strength"
    version: ClassVar[int] = 2
    needs_pairs: ClassVar[bool] = True

    def score(self, doc: SegmentedDocument, pairs: MeasuredPairs) -> tuple[float, float | None]:
        """Mean DST and its jackknife error."""
        return float(pairs.strengths.mean()), mean_error(pairs.targets, pairs.strengths)
