"""`paper`: ProLong's formulas as the paper (arXiv 2405.17915) states them.

Where the paper does not say: a document with fewer pairs than asked for has all of them read; of a document
with more than `max_segments` segments a random sample is read, and distances stay those of the whole
document.
"""

from typing import ClassVar

from longlode.mining import dependency
from longlode.mining.coherence.uncertainty import sum_error
from longlode.mining.scorers.base import SegmentedDocument
from longlode.mining.scorers.pairwise import MeasuredPairs, PairwiseScorer


class PaperScorer(PairwiseScorer):
    """LDS with alpha = beta = 1, threshold 0.1 and the distance (i - j) / (n - 1) of the document itself."""

    name: ClassVar[str] = "paper"
    version: ClassVar[int] = 2
    least_pairs: ClassVar[int] = 1

    def score(self, doc: SegmentedDocument, pairs: MeasuredPairs) -> tuple[float, float | None]:
        """LDS with places in the whole document, and the jackknife error of the sum."""
        distances = dependency.distance(
            doc.positions[pairs.targets], doc.positions[pairs.sources], doc.num_total_segments
        )
        terms = dependency.lds_terms(pairs.strengths, distances, pairs.specificities)
        return dependency.lds(pairs.strengths, distances, pairs.specificities), sum_error(
            pairs.targets, terms
        )
