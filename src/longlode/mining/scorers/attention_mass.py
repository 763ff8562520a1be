"""`attention_mass`: share of a model's attention that goes far back, a baseline for readers that have attention.

The idea of LongAttn (arXiv 2502.16860) and LADM (arXiv 2503.02502), at the size of the readers at hand. A window of 16
segments is read once; A_ij is the share of the attention in s_i that goes to s_j, mean over layers, heads and tokens.

    far_i   sum of A_ij over the segments j with 1 <= j <= i - 4, divided by 1 - A_i0
    score   mean of far_i over all windows of the document and all i >= 5

LongAttn: attention further back than a quarter of the window; its first layer only, here all full-attention layers.
LADM: the first span and the last four do not count, as models park attention on the first tokens and near context is
no long-range dependency. Its weights by distance and its own softmax over the earlier spans are not kept, nor is
LongAttn's second term, the variance, added: that needs z-scores over the corpus. `specificity_mean` stands for it: 0
when the far attention is spread evenly (what LongAttn wants), 1 when one segment has it all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from longlode.core.errors import ConfigError
from longlode.mining.coherence.uncertainty import mean_error
from longlode.mining.requests import Request, Windows
from longlode.mining.scorers.base import DocumentScore, Scorer, SegmentedDocument, SegmentOptions

WINDOW = 16
"""Segments per window: 2,048 tokens at 128 per segment, the longest that OPT can read."""
FAR = 4
"""Segments back from which attention counts as far: a quarter of the window."""
SINK = 1
"""First segments of a window that do not count."""


@dataclass(frozen=True, kw_only=True)
class AttentionMassOptions(SegmentOptions):
    """As `SegmentOptions`. window: segments read in one pass. far: segments back from which attention counts. sink:
    first segments of a window that do not count.
    """

    window: Annotated[int, Field(ge=2)] = WINDOW
    far: Annotated[int, Field(ge=1)] = FAR
    sink: Annotated[int, Field(ge=0)] = SINK

    def __post_init__(self) -> None:
        """Raises: ConfigError for a window without a far segment."""
        if self.window <= self.far + self.sink:
            raise ConfigError(
                f"window is {self.window}, far {self.far} and sink {self.sink}; expected a window above far + sink."
            )


class AttentionMassScorer(Scorer):
    """Share of the attention outside the first segment that goes 4 segments back or more.

    Reads the document once, of more than `max_segments` segments one contiguous stretch; `pairs` has no effect. Needs
    a reader with full attention (`AttendingReader`) and 8 segments; below 16 there is less far context, so compare
    documents of at least 16 segments.
    """

    name: ClassVar[str] = "attention_mass"
    min_segments: ClassVar[int] = 8
    options_type: ClassVar[type] = AttentionMassOptions
    asks = (Windows,)
    own: AttentionMassOptions

    @property
    def least_segments(self) -> int:
        """Enough segments for one far segment."""
        return max(self.min_segments, self.own.far + self.own.sink + 1)

    def options(self) -> dict[str, Any]:
        """Only its own options, as no pair is read."""
        return {}

    def choose(self, num_total: int, rng: np.random.Generator) -> np.ndarray:
        """All segments, or `max_segments` from a random place on: text that is read through must be contiguous."""
        count = max(self.least_segments, min(num_total, self.max_segments))
        return rng.integers(num_total - count + 1) + np.arange(count)

    def requests(self, doc: SegmentedDocument, rng: np.random.Generator) -> Sequence[Request]:
        """Windows side by side; the last one ends with the document, and may overlap the one before."""
        size = min(self.own.window, doc.num_segments)
        starts = np.arange(0, doc.num_segments - size + 1, size)
        if starts[-1] + size < doc.num_segments:
            starts = np.append(starts, doc.num_segments - size)
        return (Windows(doc.tokens, np.stack([starts, starts + size], axis=1)),)

    def finish(self, doc: SegmentedDocument, readings: Sequence[Any]) -> DocumentScore:
        """The mean over all rows that have a far segment; its error by leaving out one window at a time."""
        (windows,) = readings
        shares, specificities, window = [], [], []
        sink, far_back = self.own.sink, self.own.far
        for number, attention in enumerate(windows.attention):
            for row in range(sink + far_back, len(attention)):
                far = attention[row, sink : row - far_back + 1].astype(np.float64)
                shares.append(far.sum() / max(1.0 - attention[row, :sink].sum(dtype=np.float64), 1e-9))
                window.append(number)
                if len(far) > 1:
                    specificities.append(_unevenness(far))
        return DocumentScore(
            score=float(np.mean(shares)),
            score_se=mean_error(np.array(window), np.array(shares)),
            specificity_mean=float(np.mean(specificities)),
        )


def _unevenness(masses: np.ndarray) -> float:
    """(log m - entropy) / log m of m >= 2 masses; 0 if there is no mass."""
    if masses.sum() <= 0:
        return 0.0
    chances = masses[masses > 0] / masses.sum()
    most = np.log(len(masses))
    return float((most + np.sum(chances * np.log(chances))) / most)
