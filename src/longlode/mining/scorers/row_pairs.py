"""Base of `coherence` and `order`: a score without pairs, and a few whole rows of pairs for the other columns."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from longlode.mining.sampling import sample_rows
from longlode.mining.scorers.base import SegmentedDocument, SegmentOptions
from longlode.mining.scorers.pairwise import PairwiseScorer

ROW_PAIRS = 16
"""Pairs per target, the number of values that its specificity rests on."""
PAIRS_PER_SEGMENT = 0.5
"""Most pairs read per chosen segment: reading the document then costs 1.5 times its tokens."""


@dataclass(frozen=True, kw_only=True)
class RowPairsOptions(SegmentOptions):
    """As `SegmentOptions`. row: pairs per target. pairs_per_segment: most pairs per chosen segment, but at least one
    row.
    """

    row: Annotated[int, Field(ge=1)] = ROW_PAIRS
    pairs_per_segment: Annotated[float, Field(ge=0)] = PAIRS_PER_SEGMENT


class RowPairsScorer(PairwiseScorer):
    """Scorers whose score needs no pairs: a few whole rows are read for the other columns, none with 0 pairs."""

    min_segments: ClassVar[int] = 8
    default_pairs: ClassVar[int] = 0
    options_type: ClassVar[type] = RowPairsOptions
    own: RowPairsOptions

    def draw(self, doc: SegmentedDocument, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Whole rows of pairs, within `pairs` and `pairs_per_segment`; all pairs if `pairs` is None."""
        budget = None
        if self.pairs is not None:
            budget = min(self.pairs, max(self.own.row, int(doc.num_segments * self.own.pairs_per_segment)))
        return sample_rows(doc.num_segments, budget, self.own.row, rng)
