"""The objective `far_tokens`: next-token prediction with less weight for labels with little context."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from transformers import PreTrainedModel

from longlode.core.batch import Batch
from longlode.train.objectives.base import Losses, Objective
from longlode.train.objectives.next_token import NextToken


@dataclass(frozen=True, kw_only=True)
class FarTokens(Objective):
    """Next-token loss; labels with fewer than `min_context` tokens before them in their document weigh `near_weight`.

    Most labels of a corpus are near the beginning of a document and can be learned from short text as well; this moves
    the gradient to labels where a long context can help. Documents are those of `cu_seqlens`; in batches without it
    each row counts as one document.

    min_context: number of tokens before a label from which it has full weight.
    near_weight: weight of other labels, above 0 and up to 1.
    """

    name: ClassVar[str] = "far_tokens"
    min_context: Annotated[int, Field(ge=1)] = 1024
    near_weight: Annotated[float, Field(gt=0, le=1)] = 0.1

    def weight(self, batch: Batch) -> float:
        """Return the sum of the labels' weights, with `near_weight` applied."""
        return self._weighed(batch).total_weight

    def losses(self, model: PreTrainedModel, batch: Batch) -> Losses:
        """Return the losses as `NextToken` does, with `near_weight` applied."""
        return NextToken().losses(model, self._weighed(batch))

    def _weighed(self, batch: Batch) -> Batch:
        places = np.arange(batch.tokens.shape[1])
        if batch.cu_seqlens is not None:
            edges = batch.cu_seqlens
            places = places - np.repeat(edges[:-1], np.diff(edges))
        # The label of position t is token t + 1, which has t + 1 tokens before it.
        factors = np.where(places + 1 < self.min_context, self.near_weight, 1.0).astype(np.float32)
        given = np.ones(batch.tokens.shape, dtype=np.float32) if batch.weights is None else batch.weights
        return replace(batch, weights=given * factors)
