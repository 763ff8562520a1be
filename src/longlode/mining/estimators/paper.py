"""`paper`: ProLong's formulas as the paper (arXiv 2405.17915) states them.

Where the paper is silent: a document with fewer pairs than asked for has all of them read; of a document
with more than `max_segments` segments a random sample is read, and distances stay those of the whole
document.
"""

from typing import ClassVar

from longlode.mining import dependency
from longlode.mining.estimators.base import SegmentedDocument
from longlode.mining.estimators.pairwise import MeasuredPairs, PairwiseEstimator


class PaperEstimator(PairwiseEstimator):
    """LDS with alpha = beta = 1, threshold 0.1 and the distance (i - j) / (n - 1) of the document itself."""

    name: ClassVar[str] = "paper"

    def score(self, doc: SegmentedDocument, pairs: MeasuredPairs) -> tuple[float, float | None]:
        """LDS with places in the whole document."""
        distances = dependency.distance(
            doc.positions[pairs.targets], doc.positions[pairs.sources], doc.num_total_segments
        )
        return dependency.lds(pairs.strengths, distances, pairs.specificities), None
