"""What scorers that read pairs share: the pairs of a document, measured one by one."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longlode.mining import dependency
from longlode.mining.sampling import sample_pairs
from longlode.mining.scorers.base import DocumentScore, PairPlan, Scorer, SegmentedDocument


@dataclass(frozen=True, eq=False)
class MeasuredPairs:
    """The pairs of one document, `[P]` each.

    targets, sources: what names a segment (row numbers of the chosen ones in `finish`). ppl_alone, ppl_given: of the
    target, read alone and after the source. strengths: DST. gains_nats: nats a token that the source saves.
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
        """The score with what else these pairs, at least one, say of the document."""
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
        # log PPL is the mean nats a token, so this is the gain without reading the tokens again.
        gains_nats=np.log(ppl_alone) - np.log(ppl_given),
        specificities=rows[targets],
        specificity_mean=float(np.nanmean(rows)),
    )


class PairwiseScorer(Scorer):
    """Reads pairs inside the document; a subclass says only what the score is."""

    needs_unpaired: ClassVar[bool] = False
    specificity_floor: ClassVar[float] = 0.0

    @property
    def reads_model(self) -> bool:
        """As of every scorer, but not for 0 pairs."""
        return super().reads_model and self.pairs != 0

    @abstractmethod
    def score(self, doc: SegmentedDocument, pairs: MeasuredPairs) -> tuple[float, float | None]:
        """The score and its standard error, or None, from the measured pairs; at least one if `needs_pairs`."""

    def plan(self, doc: SegmentedDocument, rng: np.random.Generator) -> PairPlan:
        """`pairs` pairs, uniform without replacement; all there are when there are fewer."""
        return PairPlan(*sample_pairs(doc.num_segments, self.pairs, rng))

    def finish(
        self, doc: SegmentedDocument, plan: PairPlan, alone: np.ndarray, given: np.ndarray
    ) -> DocumentScore:
        """Measure every pair, then ask the subclass for the score."""
        if not len(plan.targets):
            return self._without_pairs(doc)
        pairs = measure(
            plan.targets,
            plan.sources,
            dependency.perplexity(alone)[plan.targets],
            dependency.perplexity(given),
            num_segments=doc.num_segments,
            floor=self.specificity_floor,
        )
        return pairs.scored(*self.score(doc, pairs))

    def _without_pairs(self, doc: SegmentedDocument) -> DocumentScore:
        """The score alone: there is nothing to say of pairs."""
        nothing = np.zeros(0)
        none = np.zeros(0, dtype=np.int32)
        pairs = MeasuredPairs(none, none, nothing, nothing, nothing, nothing, nothing, np.nan)
        score, score_se = self.score(doc, pairs)
        return DocumentScore(score=score, score_se=score_se, num_pairs=0)
