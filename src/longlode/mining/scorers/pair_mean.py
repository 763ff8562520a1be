"""Base of scores that are a mean over uniformly drawn pairs; only these can be raced (`mining/racing/race.py`)."""

import copy
from abc import abstractmethod
from typing import Any, ClassVar, Self

import numpy as np

from longlode.mining.coherence.uncertainty import mean_error
from longlode.mining.sampling import nested_pairs
from longlode.mining.scorers.base import DocumentScore, SegmentedDocument
from longlode.mining.scorers.pairwise import MeasuredPairs, PairwiseScorer, measure


class PairMeanScorer(PairwiseScorer):
    """Score = mean over the pairs that were read of a value that depends on the pair alone.

    So a few pairs estimate the mean over all without bias, with an error that follows from their spread. Neither holds
    for `paper` and `release`: a sum grows with the pairs, and the contribution of a pair (specificity) depends on which
    others of its target were read.
    """

    least_pairs: ClassVar[int] = 1
    pair_range: tuple[int, int] | None = None
    """Range [start, stop) of the pairs to read, in the document's random order; None for all."""

    @abstractmethod
    def values(self, ppl_alone: np.ndarray, ppl_given: np.ndarray) -> np.ndarray:
        """Value of each pair, float64 `[P]`. Args: the target's perplexity alone and after the source, `[P]`."""

    def within(self, start: int, stop: int) -> Self:
        """Copy of the scorer that reads only pairs number `start` to `stop - 1`.

        Disjoint ranges share no pair, and all ranges together are the pairs of the scorer without a range.
        """
        other = copy.copy(self)
        other.pair_range = (start, stop)
        return other

    def num_all_pairs(self, num_segments: int) -> int:
        """Number of pairs of the chosen segments of a document with `num_segments`, read or not."""
        chosen = min(num_segments, self.max_segments)
        return chosen * (chosen - 1) // 2

    def options(self) -> dict[str, Any]:
        """As of every scorer, and the range where there is one."""
        pair_range = {} if self.pair_range is None else {"pair_range": list(self.pair_range)}
        return super().options() | pair_range

    def draw(self, doc: SegmentedDocument, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """As of every scorer of pairs; with a range, its share of them."""
        targets, sources = super().draw(doc, rng)
        if self.pair_range is None:
            return targets, sources
        return nested_pairs(targets, sources, *self.pair_range, rng)

    def score(self, doc: SegmentedDocument, pairs: MeasuredPairs) -> tuple[float, float | None]:
        """The mean and its jackknife error."""
        return self._mean(pairs)

    def finish_pairs(
        self,
        targets: np.ndarray,
        sources: np.ndarray,
        ppl_alone: np.ndarray,
        ppl_given: np.ndarray,
        num_segments: int,
    ) -> DocumentScore:
        """As `finish`, from pairs that were stored.

        Args: targets, sources int `[P]`, P >= 1, places in the document; ppl_alone, ppl_given `[P]`, of each target
          alone and after the source; num_segments, of the whole document.
        """
        pairs = measure(
            targets, sources, ppl_alone, ppl_given, num_segments=num_segments, floor=self.specificity_floor
        )
        return pairs.scored(*self._mean(pairs))

    def _mean(self, pairs: MeasuredPairs) -> tuple[float, float | None]:
        values = self.values(pairs.ppl_alone, pairs.ppl_given)
        return float(values.mean()), mean_error(pairs.targets, values)
