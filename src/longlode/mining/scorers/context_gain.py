"""`context_gain`: what a long context adds to a short one, read straight through (LongFilter's score).

    score = mean over tokens t of  p_long(t) * log(p_long(t) / p_short(t))

with p the reader's probability of the token that stands there. Source: LongFilter, arXiv 2510.25804, known here from
a summary of it: an 8B model, 64K against 4K tokens, overlapping windows. The ratio of 16 to 1 is kept, at the size of
the readers at hand:

    short   s_i after s_{i-1}
    long    s_i after all segments of its window; windows of 16 segments begin every 8, and each gives the scores of
            its second half, so that every token has 8 to 15 segments before it

Both leave the first token of a segment out, as every score here does.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from longlode.mining.scorers.base import DocumentScore, PairPlan, Scorer, SegmentedDocument

STRIDE = 8
"""Segments from one window to the next, and the context that every scored token has at least."""
WINDOW = 2 * STRIDE
"""Segments of a long window: 2,048 tokens at 128 a segment, which OPT can just read."""


@dataclass(frozen=True, kw_only=True)
class ContextGainOptions:
    """stride: segments from one window to the next; windows are twice as long, so that each segment is scored once."""

    stride: Annotated[int, Field(ge=1)] = STRIDE


class ContextGainScorer(Scorer):
    """The mean of p log (p / p_short), at least 0 in expectation for a reader that uses its context well.

    Reads about four times the document, of more than `max_segments` segments one contiguous stretch; `pairs` has no
    effect. Needs a reader that reads on (`ContinuingReader`) and 9 segments.
    """

    name: ClassVar[str] = "context_gain"
    min_segments: ClassVar[int] = 2
    options_type: ClassVar[type] = ContextGainOptions
    own: ContextGainOptions

    @property
    def least_segments(self) -> int:
        """Enough for one segment with a long context."""
        return self.own.stride + 1

    def options(self) -> dict[str, Any]:
        """Window, and how much is read of a long document."""
        return {"max_segments": self.max_segments, "window": 2 * self.own.stride}

    def choose(self, num_total: int, rng: np.random.Generator) -> np.ndarray:
        """All, or a stretch of `max_segments` at a random place: what is read through must be contiguous."""
        count = max(self.least_segments, min(num_total, self.max_segments))
        return rng.integers(num_total - count + 1) + np.arange(count)

    def plan(self, doc: SegmentedDocument, rng: np.random.Generator) -> PairPlan:
        """The windows one after the other, each a chain; then (i | i - 1) for every scored segment i."""
        stride = self.own.stride
        targets, sources, continues = [], [], []
        for start in range(0, doc.num_segments - stride, stride):
            rows = np.arange(start, min(start + 2 * stride, doc.num_segments), dtype=np.int32)
            targets.append(rows[1:])
            sources.append(rows[:-1])
            continues.append(np.arange(len(rows) - 1) > 0)
        scored = np.arange(stride, doc.num_segments, dtype=np.int32)
        return PairPlan(
            np.concatenate([*targets, scored]),
            np.concatenate([*sources, scored - 1]),
            np.concatenate([*continues, np.zeros(len(scored), dtype=bool)]),
        )

    def finish(
        self, doc: SegmentedDocument, plan: PairPlan, alone: np.ndarray, given: np.ndarray
    ) -> DocumentScore:
        """Compare the second half of every window with the short readings of the same segments."""
        stride = self.own.stride
        num_scored = doc.num_segments - stride
        in_windows = np.arange(len(plan.targets)) < len(plan.targets) - num_scored
        assert plan.continues is not None, "this scorer's own plan"
        # Pairs of a window come in order: the one that does not continue is its first, with one segment before it.
        begun = np.maximum.accumulate(np.where(plan.continues, 0, np.arange(len(plan.targets))))
        num_before = np.arange(len(plan.targets)) - begun + 1
        long = given[in_windows & (num_before >= stride)].astype(np.float64)
        short = given[~in_windows].astype(np.float64)
        gain = short - long
        return DocumentScore(
            score=float(np.mean(np.exp(-long) * gain)), num_pairs=len(given), gain_nats=float(gain.mean())
        )
