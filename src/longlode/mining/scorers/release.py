"""`release`: the numbers of ProLong's released code on the same pairs, with a list of its deviations from the paper.

Checked against `prolong/run.py` and `run_batch_multi_process.py` of github.com/October2001/ProLong (2024).
`mining/dependency.py` lists the deviations of its formulas (R1 to R6). The others:

    R7   A document with fewer pairs than the sample size scores exactly 0, as none of its pairs is read:
         below 33 segments at 500 pairs, below 101 at the multi-process default of 5000. Kept, with a reason
         on the row.
    R8   Of a document with more segments than the window, as many segments as the window holds are drawn at
         random from the whole document, and i - j counts drawn segments, not segments of the text. Kept.
    R9   A segment's first token is never scored, not even after a source, where it has a context. Kept
         (Reader).
    R10  The tail after the last whole segment is dropped. Kept (segments.py).
    R11  Segments are read without BOS, and nothing subtracts the gain from any text of the kind: a source
         from another document of the same domain has most of the strength of one from the document itself
         (docs/scorers.md). Kept.

Not kept, as accidents of the program that are no part of the score:

    X1   fp16 logits, loss and exp: coarse steps of perplexity, infinity above 65,504. Here: the reader's own
         dtype, then float64.
    X2   Any exception gives the score 0, and a document of no whole segment 0 or a crash. Here: a status and
         a reason, and no score.
    X3   The pairs come from a process-wide generator that a resumed or re-split run leaves elsewhere. Here: a
         stream per document, so the draw differs from the release's for a given seed, the formulas do not.
    X4   A record without a text takes the text of the record before it. Here: a status.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from longlode.mining import dependency
from longlode.mining.coherence.uncertainty import sum_error
from longlode.mining.scorers.base import DocumentScore, SegmentedDocument
from longlode.mining.scorers.pairwise import MeasuredPairs, PairwiseScorer


class ReleaseScorer(PairwiseScorer):
    """ProLong as released. The window W of R1 is `max_segments`; all pairs (None) is its sample size -1."""

    name: ClassVar[str] = "release"
    version: ClassVar[int] = 2
    least_pairs: ClassVar[int] = 1
    specificity_floor: ClassVar[float] = dependency.RELEASE_FLOOR

    def draw(self, doc: SegmentedDocument, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """As the base, but no pair at all when there are fewer than asked for (R7)."""
        if self.pairs is not None and _num_all_pairs(doc) < self.pairs:
            return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32)
        return super().draw(doc, rng)

    def finish(self, doc: SegmentedDocument, readings: Sequence[Any]) -> DocumentScore:
        """As the base, but 0 with a reason when no pair was read (R7)."""
        if not readings:
            few = f"fewer pairs ({_num_all_pairs(doc)}) than the sample size ({self.pairs})"
            reason = f"{few}: the release scores 0"
            return DocumentScore(score=0.0, num_pairs=0, reason=reason)
        return super().finish(doc, readings)

    def score(self, doc: SegmentedDocument, pairs: MeasuredPairs) -> tuple[float, float | None]:
        """LDS over the drawn segments (R1 to R6, R8); its error is longlode's, as the release has none."""
        distances = dependency.release_distance(pairs.targets, pairs.sources, self.max_segments)
        terms = dependency.lds_terms(pairs.strengths, distances, pairs.specificities)
        score = dependency.release_lds(pairs.strengths, distances, pairs.specificities)
        return score, sum_error(pairs.targets, terms)


def _num_all_pairs(doc: SegmentedDocument) -> int:
    return doc.num_segments * (doc.num_segments - 1) // 2
