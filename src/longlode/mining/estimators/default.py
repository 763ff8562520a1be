"""`default`: the order contrast of the whole document, with a few pairs read for the other columns.

Chosen by measurement (`python -m benchmarks.mining_quality`, docs/mining.md): it separates coherent documents from
spliced ones, lists and logs better than every score made of perplexities of pairs, and it needs no model for it.
"""

from typing import Any, ClassVar

import numpy as np

from longlode.mining.estimators.base import PairPlan, SegmentedDocument
from longlode.mining.estimators.pairwise import MeasuredPairs, PairwiseEstimator
from longlode.mining.order import information, mean_and_error, order_contrast
from longlode.mining.sampling import sample_rows

NEAR_TOKENS = (128, 192)
"""What a model of any kind gets right from close by: types that stand there are not counted. Least and most."""
SPAN_TOKENS = 1024
"""The past that is put to the test, and the size of the windows it is compared with. At most."""
ROW_PAIRS = 16
"""Pairs of one target, so that specificity rests on so many values."""
PAIRS_PER_SEGMENT = 0.5
"""Pairs read at most for each chosen segment: the whole then reads a document 1.5 times."""


def spans(num_tokens: int) -> tuple[int, int]:
    """(near, span) in tokens for a document of `num_tokens`; the full ones from 15,360 tokens on.

    A span is at most a tenth of the document, so that there are windows enough to compare with; a longer document can
    afford a wider near context, which keeps its counts free of what any language model knows (docs/experiments.md).
    """
    least, most = NEAR_TOKENS
    near = min(max(least, num_tokens // 80), most, num_tokens // 16)
    return near, max(1, min(SPAN_TOKENS, num_tokens // 10))


def order_score(tokens: np.ndarray) -> tuple[float, float | None]:
    """The default score of a document's tokens int `[n]`, nats a token, and its standard error if it has one."""
    near, span = spans(len(tokens))
    result = order_contrast(tokens, near=near, span=span)
    return mean_and_error(result.contrast * information(tokens), result.counted, span)


class DefaultEstimator(PairwiseEstimator):
    """Score = mean over counted tokens of information x contrast, nats a token (`mining.order`).

    It says how many nats a token of the document's own vocabulary are announced in the ~1,000 tokens before the near
    context, beyond what as many tokens from anywhere else in the document would announce. 0 for text whose order does
    not matter; the number does not grow with length. Needs 8 segments.
    """

    name: ClassVar[str] = "default"
    min_segments: ClassVar[int] = 8

    def options(self) -> dict[str, Any]:
        """The pair budget as of every estimator, and the sizes of this one."""
        sizes = {
            "near": list(NEAR_TOKENS),
            "span": SPAN_TOKENS,
            "row": ROW_PAIRS,
            "pairs_per_segment": PAIRS_PER_SEGMENT,
        }
        return super().options() | sizes

    def plan(self, doc: SegmentedDocument, rng: np.random.Generator) -> PairPlan:
        """Whole rows of pairs, within `pairs` and half a pair for each segment; all pairs if `pairs` is None."""
        budget = None
        if self.pairs is not None:
            budget = min(self.pairs, max(ROW_PAIRS, int(doc.num_segments * PAIRS_PER_SEGMENT)))
        return PairPlan(*sample_rows(doc.num_segments, budget, ROW_PAIRS, rng))

    def score(self, doc: SegmentedDocument, pairs: MeasuredPairs) -> tuple[float, float | None]:
        """The order contrast and its standard error; the pairs have no part in it."""
        return order_score(doc.all_tokens)
