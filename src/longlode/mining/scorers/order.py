"""`order`: the order contrast alone. Its unit is nats per token, and it needs only tokens."""

from typing import Any, ClassVar

import numpy as np

from longlode.mining.coherence.features import NEAR_TOKENS, SPAN_TOKENS, spans
from longlode.mining.coherence.order import Occurrences, mean_and_error, weighted_contrast
from longlode.mining.scorers.base import SegmentedDocument
from longlode.mining.scorers.pairwise import MeasuredPairs
from longlode.mining.scorers.row_pairs import RowPairsScorer


def order_score(tokens: np.ndarray) -> tuple[float, float | None]:
    """The order contrast of a document's tokens int `[n]`, nats per token, and its standard error if it has one."""
    near, span = spans(len(tokens))
    result = weighted_contrast(Occurrences(np.asarray(tokens)), near=near, span=span)
    return mean_and_error(result.contrast, result.counted, span)


class OrderScorer(RowPairsScorer):
    """Score = mean over counted tokens of information x contrast, nats per token (`mining.coherence.order`).

    The information of words that also occur in the ~1,000 tokens before the near context, minus that expected from as
    many tokens of anywhere else in the document. 0 for text whose order does
    not matter; linear in the number of announcements; the number does not grow with length. Needs 8 segments.
    """

    name: ClassVar[str] = "order"

    def options(self) -> dict[str, Any]:
        """The pair budget, and the sizes of this scorer."""
        return super().options() | {"near": list(NEAR_TOKENS), "span": SPAN_TOKENS}

    def score(self, doc: SegmentedDocument, pairs: MeasuredPairs) -> tuple[float, float | None]:
        """The order contrast and its standard error; the pairs have no part in it."""
        return order_score(doc.all_tokens)
