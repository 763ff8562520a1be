"""`overlap`: rare word sequences that come back from far away, a baseline that asks no model."""

from typing import Any, ClassVar

import numpy as np

from longlode.mining.baselines import far_overlap
from longlode.mining.scorers.base import DocumentScore, PairPlan, Scorer, SegmentedDocument

NUM_TOKENS = 2
"""Tokens of a window; of 2, 3 and 4 the best on the labelled set (docs/experiments.md)."""
MIN_DISTANCE = 2
"""Segments back at least: one that stands further away than the neighbour."""
RARE_SHARE = 0.1
"""Windows in more than this share of the document's segments (but at least in two) are its common wording."""


class OverlapScorer(Scorer):
    """Score = share of the rare n-token windows of a segment that stand in a segment further back than its neighbour.

    Tokens are the reader's; its model is never run. It knows nothing of order: text that repeats itself with changes,
    and a list whose items share terms, score high. That is what makes it a baseline.
    """

    name: ClassVar[str] = "overlap"
    min_segments: ClassVar[int] = MIN_DISTANCE + 1
    needs_readings: ClassVar[bool] = False

    def options(self) -> dict[str, Any]:
        """The sizes; no pair is read, and all segments count."""
        return {"num_tokens": NUM_TOKENS, "min_distance": MIN_DISTANCE, "rare_share": RARE_SHARE}

    def choose(self, num_total: int, rng: np.random.Generator) -> np.ndarray:
        """All of them: it costs a sort."""
        return np.arange(num_total)

    def plan(self, doc: SegmentedDocument, rng: np.random.Generator) -> PairPlan:
        """No pair."""
        return PairPlan.empty()

    def finish(
        self, doc: SegmentedDocument, plan: PairPlan, alone: np.ndarray, given: np.ndarray
    ) -> DocumentScore:
        """The share, over all segments that have one far enough back."""
        rare = max(2.0, RARE_SHARE * doc.num_segments)
        return DocumentScore(far_overlap(doc.tokens, MIN_DISTANCE, NUM_TOKENS, max_segments=rare))
