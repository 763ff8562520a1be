"""Cross entropy of the next token, for any causal language model."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from longlode.core.batch import Batch
from longlode.mixers.norm import at_least_float32
from longlode.models import LonglodeForCausalLM
from longlode.models.loss import IGNORED, next_token_loss
from longlode.train.objectives.base import Losses, Objective


@dataclass(frozen=True, kw_only=True)
class NextToken(Objective):
    """Mean of -log p(label), nats per label, labels weighed as the batch says."""

    name: ClassVar[str] = "next_token"

    def weight(self, batch: Batch) -> float:
        """The weights of the labels, or how many there are."""
        return batch.total_weight

    def losses(self, model: PreTrainedModel, batch: Batch) -> Losses:
        """Of a model of ours without ever holding all logits; of another from its logits."""
        return (_of_ours if isinstance(model, LonglodeForCausalLM) else _of_others)(model, batch)


def _of_ours(model: PreTrainedModel, batch: Batch) -> Losses:
    device = next(model.parameters()).device
    labels = torch.from_numpy(batch.labels).to(device)
    inputs = {"input_ids": torch.from_numpy(batch.tokens).to(device)}
    if batch.cu_seqlens is not None:
        inputs["cu_seqlens"] = torch.from_numpy(batch.cu_seqlens).to(device)
    if batch.weights is None:
        # One kept position: held-out losses need no logits, and those of a whole batch may not fit in memory.
        output = model(**inputs, shift_labels=labels, num_items_in_batch=1, use_cache=False, logits_to_keep=1)
        return Losses(output.loss, _metrics(output))
    output = model.model(**inputs, use_cache=False)
    importance = torch.from_numpy(batch.weights).to(device)
    summed = next_token_loss(
        output.last_hidden_state, model.lm_head, labels, num_items=1, importance=importance
    )
    auxiliary = getattr(output, "aux_loss", None)
    if auxiliary is not None and model.training:
        summed = summed + batch.total_weight * auxiliary
    return Losses(summed, _metrics(output))


def _of_others(model: PreTrainedModel, batch: Batch) -> Losses:
    """Documents of a packed row are told by positions that begin anew, as transformers' models read them."""
    device = next(model.parameters()).device
    labels = torch.from_numpy(batch.labels).to(device)
    inputs = {"input_ids": torch.from_numpy(batch.tokens).to(device)}
    if batch.cu_seqlens is not None:
        edges = torch.from_numpy(batch.cu_seqlens).to(device)
        sizes = edges.diff()
        places = torch.arange(batch.tokens.shape[1], device=device)
        inputs["position_ids"] = (places - edges[:-1].repeat_interleave(sizes))[None]
    output = model(**inputs, use_cache=False)
    logits = at_least_float32(output.logits)
    nats = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    if batch.weights is not None:
        nats = nats * torch.from_numpy(batch.weights).to(device).flatten()
    summed = nats.sum()
    auxiliary = getattr(output, "aux_loss", None)
    if isinstance(auxiliary, Tensor) and model.training:
        scale = getattr(model.config, "router_aux_loss_coef", 1.0)
        summed = summed + batch.total_weight * scale * auxiliary
    return Losses(summed, _metrics(output))


def _metrics(output: object) -> dict[str, Tensor]:
    """What a model's output says of itself, and its auxiliary loss."""
    found = dict(getattr(output, "metrics", None) or {})
    auxiliary = getattr(output, "aux_loss", None)
    if isinstance(auxiliary, Tensor):
        found["aux_loss"] = auxiliary
    return {name: value.detach() for name, value in found.items()}
