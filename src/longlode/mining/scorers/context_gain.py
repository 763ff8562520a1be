"""`context_gain`: gain of a long context over a short one, read from beginning to end (LongFilter's score).

    score = mean over tokens t of  p_long(t) * log(p_long(t) / p_short(t))

with p the reader's probability of the actual token. Source: LongFilter, arXiv 2510.25804, known here from
a summary of it: an 8B model, 64K against 4K tokens, overlapping windows. The ratio of 16 to 1 is kept, at the size of
the readers at hand:

    short   s_i after s_{i-1}
    long    s_i after all segments of its window; windows of 16 segments begin every 8, and each gives the scores of
            its second half, so that every token has 8 to 15 segments before it

Both leave out the first token of a segment, as every score here does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from longlode.mining.requests import Chains, Pairs, Request
from longlode.mining.scorers.base import DocumentScore, Scorer, SegmentedDocument, SegmentOptions

STRIDE = 8
"""Segments from one window to the next, and the context that every scored token has at least."""
WINDOW = 2 * STRIDE
"""Segments per long window: 2,048 tokens at 128 per segment, the longest that OPT can read."""


@dataclass(frozen=True, kw_only=True)
class ContextGainOptions(SegmentOptions):
    """As `SegmentOptions`. stride: segments from one window to the next; windows are twice as long, so that each
    segment is scored once.
    """

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
    asks = (Pairs, Chains)

    @property
    def least_segments(self) -> int:
        """Enough segments for one with a long context."""
        return self.own.stride + 1

    def options(self) -> dict[str, Any]:
        """The window that follows from the stride."""
        return {"window": 2 * self.own.stride}

    def choose(self, num_total: int, rng: np.random.Generator) -> np.ndarray:
        """All segments, or `max_segments` from a random place on: text that is read through must be contiguous."""
        count = max(self.least_segments, min(num_total, self.max_segments))
        return rng.integers(num_total - count + 1) + np.arange(count)

    def requests(self, doc: SegmentedDocument, rng: np.random.Generator) -> Sequence[Request]:
        """(i | i - 1) for every scored segment i, and the windows, each a chain."""
        stride = self.own.stride
        scored = np.arange(stride, doc.num_segments, dtype=np.int32)
        windows = [
            np.arange(start, min(start + 2 * stride, doc.num_segments))
            for start in range(0, doc.num_segments - stride, stride)
        ]
        # The segments before the first scored one are read too: batches, and so the last bits of the scores, depend on
        # how many there are.
        pairs = Pairs(doc.tokens, scored, scored - 1, unpaired=True)
        return pairs, Chains(doc.tokens, tuple(windows))

    def finish(self, doc: SegmentedDocument, readings: Sequence[Any]) -> DocumentScore:
        """Compare the second half of every window with the short readings of the same segments."""
        pairs, chains = readings
        # Row k of a window has k + 1 segments before it.
        halves = [given[self.own.stride - 1 :] for given in chains.given]
        long = np.concatenate(halves).astype(np.float64)
        short = pairs.given.astype(np.float64)
        gain = short - long
        return DocumentScore(
            score=float(np.mean(np.exp(-long) * gain)),
            num_pairs=len(pairs.given) + sum(map(len, chains.given)),
            gain_nats=float(gain.mean()),
        )
