"""Next-token prediction in which labels with little context before them count less."""

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
    """Next token; a label with fewer than `min_context` tokens before it in its document counts `near_weight`.

    Most labels of a corpus stand near the beginning of a document and can be learned from short text as well; this
    moves the gradient to where a long context can help. Documents are told by the edges of
    packed rows; in other batches a row counts as one.

    min_context: tokens before a label from which on it counts fully.
    near_weight: what a nearer label counts, above 0 and up to 1.
    """

    name: ClassVar[str] = "far_tokens"
    min_context: Annotated[int, Field(ge=1)] = 1024
    near_weight: Annotated[float, Field(gt=0, le=1)] = 0.1

    def weight(self, batch: Batch) -> float:
        """The weights of the labels, after the nearer ones were lowered."""
        return self._weighed(batch).total_weight

    def losses(self, model: PreTrainedModel, batch: Batch) -> Losses:
        """As `NextToken`, with the weights changed."""
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
