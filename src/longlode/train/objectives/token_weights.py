"""Objectives that weigh the labels of the next-token loss by one function of model and batch."""

import itertools
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from transformers import PreTrainedModel

from longlode.core.batch import Batch
from longlode.train.objectives.base import Losses, Objective
from longlode.train.objectives.inputs import label_nats
from longlode.train.objectives.next_token import NextToken


@dataclass(frozen=True, kw_only=True)
class TokenWeights(Objective):
    """Next-token loss whose labels weigh `token_weights` times what the packer gave them, divided by the packer's.

    An objective of this kind is one function. Weights that depend on the model are not known before a step, so the
    divisor is that of `next_token`: the loss is in nats per label where the weights are 1 on average.
    """

    @abstractmethod
    def token_weights(self, model: PreTrainedModel, batch: Batch) -> np.ndarray:
        """Return the weight of every label, float32 `[B, T]`; no gradient passes through it."""

    def weight(self, batch: Batch) -> float:
        """Return the sum of the packer's weights, or the number of labels without."""
        return batch.total_weight

    def losses(self, model: PreTrainedModel, batch: Batch) -> Losses:
        """Return the losses as `NextToken` does, the labels weighed; metric `token_weight`: their mean weight."""
        weights = self.token_weights(model, batch).astype(np.float32)
        given = np.ones(batch.tokens.shape, dtype=np.float32) if batch.weights is None else batch.weights
        found = NextToken().losses(model, replace(batch, weights=given * weights))
        labelled = weights[batch.labels != -100]
        mean = torch.tensor(float(labelled.mean()) if labelled.size else 0.0)
        # The auxiliary loss stays a mean over the part by the packer's weights, whatever the labels weigh.
        auxiliary, scale = (
            found.auxiliary,
            float((given * weights)[batch.labels != -100].sum(dtype=np.float64)),
        )
        if auxiliary is not None and scale:
            auxiliary = auxiliary * (batch.total_weight / scale)
        return Losses(found.summed, {**found.metrics, "token_weight": mean}, auxiliary)


@dataclass(frozen=True, kw_only=True)
class LongCE(TokenWeights):
    """Next-token loss whose labels weigh exp(nats with a short context - nats with all of it), up to `most`.

    Labels that far context makes likelier weigh more, those that it does not help keep a weight near 1. A step also
    reads its rows without gradients: once whole, and as windows of 2 `short_context` tokens that overlap by half, twice
    as many tokens. Source: LongCE, arXiv 2410.23771, where windows move by less.

    short_context: a label is judged by at least so many tokens before it, and fewer than twice as many.
    most: largest weight of a label.
    """

    name: ClassVar[str] = "long_ce"
    short_context: Annotated[int, Field(ge=1)] = 1024
    most: Annotated[float, Field(gt=0)] = 5.0

    def token_weights(self, model: PreTrainedModel, batch: Batch) -> np.ndarray:
        """Return the weights of the class's formula; 1 for labels with no more than the short context before them."""
        was_training = model.training
        model.train(False)
        try:
            whole = label_nats(model, batch).double().cpu().numpy()
            short = self._short_nats(model, batch, whole)
        finally:
            model.train(was_training)
        return np.minimum(np.exp(np.clip(short - whole, -50.0, 50.0)), self.most)

    def _short_nats(self, model: PreTrainedModel, batch: Batch, whole: np.ndarray) -> np.ndarray:
        """Return -log p of the labels by windows; those of a document's first window are `whole`'s."""
        found = whole.copy()
        half = self.short_context
        for row, start, end in _documents(batch):
            # Window w is tokens [w half, (w + 2) half) of the document; its second half is judged.
            starts = list(range(start + half, max(start + half, end - half), half))
            if not starts:
                continue
            pieces = [slice(first, min(first + 2 * half, end)) for first in starts]
            sizes = [piece.stop - piece.start for piece in pieces]
            tokens = np.concatenate([batch.tokens[row, piece] for piece in pieces])[None]
            labels = np.concatenate([batch.labels[row, piece] for piece in pieces])[None]
            edges = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
            nats = label_nats(model, Batch(tokens, labels, edges))[0].double().cpu().numpy()
            for piece, first in zip(pieces, edges[:-1].tolist(), strict=True):
                judged = nats[first + half : first + piece.stop - piece.start]
                found[row, piece.start + half : piece.stop] = judged
        return found


def _documents(batch: Batch) -> list[tuple[int, int, int]]:
    """Return row, start and end of every document; a row without cu_seqlens is one."""
    if batch.cu_seqlens is None:
        return [(row, 0, batch.tokens.shape[1]) for row in range(len(batch.tokens))]
    edges = batch.cu_seqlens.tolist()
    return [(0, start, end) for start, end in itertools.pairwise(edges)]
