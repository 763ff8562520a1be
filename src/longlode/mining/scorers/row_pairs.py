"""What `default` and `order` share: a score without pairs, and a few whole rows of pairs for the other columns."""

from typing import Any, ClassVar

import numpy as np

from longlode.mining.sampling import sample_rows
from longlode.mining.scorers.base import PairPlan, SegmentedDocument
from longlode.mining.scorers.pairwise import PairwiseScorer

ROW_PAIRS = 16
"""Pairs of one target, so that specificity rests on so many values."""
PAIRS_PER_SEGMENT = 0.5
"""Pairs read at most for each chosen segment: the whole then reads a document 1.5 times."""


class RowPairsScorer(PairwiseScorer):
    """Scorers whose score needs no pairs: a few whole rows are read for the other columns, none with 0 pairs."""

    min_segments: ClassVar[int] = 8
    default_pairs: ClassVar[int] = 0

    def options(self) -> dict[str, Any]:
        """The pair budget as of every scorer, and the sizes of this one."""
        return super().options() | {"row": ROW_PAIRS, "pairs_per_segment": PAIRS_PER_SEGMENT}

    def plan(self, doc: SegmentedDocument, rng: np.random.Generator) -> PairPlan:
        """Whole rows of pairs, within `pairs` and half a pair for each segment; all pairs if `pairs` is None."""
        budget = None
        if self.pairs is not None:
            budget = min(self.pairs, max(ROW_PAIRS, int(doc.num_segments * PAIRS_PER_SEGMENT)))
        return PairPlan(*sample_rows(doc.num_segments, budget, ROW_PAIRS, rng))
