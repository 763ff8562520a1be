"""Base of scorers that read pairs: the pairs of a document, measured one by one."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from longlode.mining import dependency
from longlode.mining.requests import Pairs, Request, Tokens
from longlode.mining.sampling import sample_pairs
from longlode.mining.scorers.base import DocumentScore, Scorer, SegmentedDocument


@dataclass(frozen=True, eq=False)
class MeasuredPairs:
    """The pairs of one document, `[P]` each.

    targets, sources: numbers of segments (row numbers of the chosen ones in `finish`). ppl_alone, ppl_given: of the
    target, read alone and after the source. strengths: DST. gains_nats: nats per token that the source saves.
    specificities: the DSP of each pair's target; specificity_mean: over targets.
    """

    targets: np.ndarray
    sources: np.ndarray
    ppl_alone: np.ndarray
    ppl_given: np.ndarray
    strengths: np.ndarray
    gains_nats: np.ndarray
    specificities: np.ndarray
    specificity_mean: float

    def scored(self, score: float, score_se: float | None) -> DocumentScore:
        """The score with the other columns from these pairs, at least one."""
        return DocumentScore(
            score=score,
            score_se=score_se,
            num_pairs=len(self.strengths),
            strength_mean=float(self.strengths.mean()),
            strength_max_mean=dependency.strength_max_mean(self.targets, self.strengths),
            gain_nats=float(self.gains_nats.mean()),
            specificity_mean=self.specificity_mean,
        )


def measure(
    targets: np.ndarray,
    sources: np.ndarray,
    ppl_alone: np.ndarray,
    ppl_given: np.ndarray,
    *,
    num_segments: int,
    floor: float = 0.0,
) -> MeasuredPairs:
    """Measure every pair.

    Args: targets, sources int `[P]`, P >= 1, numbers below num_segments; ppl_alone, ppl_given `[P]`, of each pair's
      target; floor, as of `dependency.specificity`.
    """
    rows = dependency.specificity_rows(targets, ppl_alone - ppl_given, num_segments, floor)
    return MeasuredPairs(
        targets,
        sources,
        ppl_alone,
        ppl_given,
        strengths=dependency.strength(ppl_alone, ppl_given),
        # log PPL is the mean nats per token, so this is the gain without reading the tokens again.
        gains_nats=np.log(ppl_alone) - np.log(ppl_given),
        specificities=rows[targets],
        specificity_mean=float(np.nanmean(rows)),
    )


class PairwiseScorer(Scorer):
    """Base class that reads pairs inside the document; a subclass only defines the score."""

    specificity_floor: ClassVar[float] = 0.0

    @property
    def asks(self) -> tuple[type[Request], ...]:
        """Pairs, or tokens alone for 0 pairs."""
        return (Tokens,) if self.pairs == 0 else (Pairs,)

    @abstractmethod
    def score(self, doc: SegmentedDocument, pairs: MeasuredPairs) -> tuple[float, float | None]:
        """The score and its standard error, or None, from the measured pairs; at least `least_pairs` of them."""

    def draw(self, doc: SegmentedDocument, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Targets and sources int32 `[P]`: `pairs` pairs, uniform without replacement; all if there are fewer."""
        return sample_pairs(doc.num_segments, self.pairs, rng)

    def requests(self, doc: SegmentedDocument, rng: np.random.Generator) -> Sequence[Request]:
        """Request of the pairs of `draw`; none where it draws none."""
        if self.pairs == 0:
            return ()
        targets, sources = self.draw(doc, rng)
        return (Pairs(doc.segments, targets, sources),) if len(targets) else ()

    def finish(self, doc: SegmentedDocument, readings: Sequence[Any]) -> DocumentScore:
        """Measure every pair, then ask the subclass for the score."""
        if not readings:
            return self._without_pairs(doc)
        (read,) = readings
        pairs = measure(
            read.targets,
            read.sources,
            dependency.perplexity(read.alone)[read.targets],
            dependency.perplexity(read.given),
            num_segments=doc.num_segments,
            floor=self.specificity_floor,
        )
        return pairs.scored(*self.score(doc, pairs))

    def _without_pairs(self, doc: SegmentedDocument) -> DocumentScore:
        """The score alone, without columns of pairs."""
        nothing = np.zeros(0)
        none = np.zeros(0, dtype=np.int32)
        pairs = MeasuredPairs(none, none, nothing, nothing, nothing, nothing, nothing, np.nan)
        score, score_se = self.score(doc, pairs)
        return DocumentScore(score=score, score_se=score_se, num_pairs=0)
