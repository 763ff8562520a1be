"""`overlap`: rare word sequences that return from far away, a baseline without a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from longlode.mining.baselines import far_overlap
from longlode.mining.requests import Tokens
from longlode.mining.scorers.base import DocumentScore, Scorer, SegmentedDocument

NUM_TOKENS = 2
"""Tokens per window; of 2, 3 and 4 the best on the labelled set (docs/experiments/prolong.md)."""
MIN_DISTANCE = 2
"""Least distance in segments: further away than the neighbour."""
RARE_SHARE = 0.1
"""Windows in more than this share of the document's segments (but at least in two) are its common wording."""


@dataclass(frozen=True, kw_only=True)
class OverlapOptions:
    """num_tokens: of a sequence. min_distance: least, in segments. rare_share: largest share of the segments that may
    hold a sequence that counts.
    """

    num_tokens: Annotated[int, Field(ge=1)] = NUM_TOKENS
    min_distance: Annotated[int, Field(ge=1)] = MIN_DISTANCE
    rare_share: Annotated[float, Field(gt=0, le=1)] = RARE_SHARE


class OverlapScorer(Scorer):
    """Score = share of the rare n-token windows of a segment that occur in a segment further back than its neighbour.

    Tokens are the reader's; its model is never run. It ignores order: text that repeats itself with changes,
    and a list whose items share terms, score high. That is what makes it a baseline.
    """

    name: ClassVar[str] = "overlap"
    options_type: ClassVar[type] = OverlapOptions
    asks = (Tokens,)
    own: OverlapOptions

    @property
    def least_segments(self) -> int:
        """Enough segments for one that is far enough back."""
        return self.own.min_distance + 1

    def options(self) -> dict[str, Any]:
        """Only its own options: no pair is read, and all segments count."""
        return {}

    def choose(self, num_total: int, rng: np.random.Generator) -> np.ndarray:
        """All segments, as the cost is one sort."""
        return np.arange(num_total)

    def finish(self, doc: SegmentedDocument, readings: Sequence[Any]) -> DocumentScore:
        """The share, over all segments that have one far enough back."""
        rare = max(2.0, self.own.rare_share * doc.num_segments)
        found = far_overlap(doc.tokens, self.own.min_distance, self.own.num_tokens, max_segments=rare)
        return DocumentScore(found)
