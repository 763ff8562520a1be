"""What release, paper and strength share: T pairs drawn uniformly, measured one by one."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longlode.mining import dependency
from longlode.mining.estimators.base import DocumentScore, Estimator, PairPlan, SegmentedDocument
from longlode.mining.sampling import sample_pairs


@dataclass(frozen=True, eq=False)
class MeasuredPairs:
    """The pairs of one document, `[P]` each.

    targets, sources: row numbers of the chosen segments. strengths: DST. gains_nats: nats a token that the
    source saves. specificities: the DSP of each pair's target.
    """

    targets: np.ndarray
    sources: np.ndarray
    strengths: np.ndarray
    gains_nats: np.ndarray
    specificities: np.ndarray


class PairwiseEstimator(Estimator):
    """Reads pairs inside the document; a subclass says only what the score is."""

    needs_unpaired: ClassVar[bool] = False
    specificity_floor: ClassVar[float] = 0.0

    @property
    def reads_model(self) -> bool:
        """As of every estimator, but not for 0 pairs."""
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
        ppl_alone = dependency.perplexity(alone)[plan.targets]
        ppl_given = dependency.perplexity(given)
        strengths = dependency.strength(ppl_alone, ppl_given)
        rows = dependency.specificity_rows(
            plan.targets, ppl_alone - ppl_given, doc.num_segments, self.specificity_floor
        )
        # log PPL is the mean nats a token, so this is the gain without reading the tokens again.
        gains = np.log(ppl_alone) - np.log(ppl_given)
        pairs = MeasuredPairs(plan.targets, plan.sources, strengths, gains, rows[plan.targets])
        score, score_se = self.score(doc, pairs)
        return DocumentScore(
            score=score,
            score_se=score_se,
            num_pairs=len(strengths),
            strength_mean=float(strengths.mean()),
            strength_max_mean=dependency.strength_max_mean(plan.targets, strengths),
            gain_nats=float(gains.mean()),
            specificity_mean=float(np.nanmean(rows)),
        )

    def _without_pairs(self, doc: SegmentedDocument) -> DocumentScore:
        """The score alone: there is nothing to say of pairs."""
        nothing = np.zeros(0)
        none = np.zeros(0, dtype=np.int32)
        score, score_se = self.score(doc, MeasuredPairs(none, none, nothing, nothing, nothing))
        return DocumentScore(score=score, score_se=score_se, num_pairs=0)
