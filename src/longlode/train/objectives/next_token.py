"""The objective `next_token`: cross entropy of the next token, for any causal language model."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from longlode.core.batch import Batch
from longlode.mixers.norm import at_least_float32
from longlode.models import LonglodeForCausalLM
from longlode.models.loss import IGNORED
from longlode.train.objectives.base import Losses, Objective
from longlode.train.objectives.inputs import device_of, label_places, model_inputs, to_device


@dataclass(frozen=True, kw_only=True)
class NextToken(Objective):
    """Mean of -log p(label), nats per label, labels weighted by `batch.weights`."""

    name: ClassVar[str] = "next_token"

    def weight(self, batch: Batch) -> float:
        """Return the sum of the labels' weights, or their number without weights."""
        return batch.total_weight

    def losses(self, model: PreTrainedModel, batch: Batch) -> Losses:
        """Return the losses; for a longlode model without holding all logits, for another from its logits."""
        return (_of_ours if isinstance(model, LonglodeForCausalLM) else _of_others)(model, batch)


def _of_ours(model: PreTrainedModel, batch: Batch) -> Losses:
    device = device_of(model)
    importance = None if batch.weights is None else to_device(batch.weights, device)
    # The whole model is called, so that its hooks and wrappers run. Its loss is computed from hidden states block by
    # block; of the logits, which it would compute for every token in evaluation, only the last is requested.
    output = model(
        **model_inputs(model, batch),
        use_cache=False,
        shift_labels=to_device(batch.labels, device),
        label_weights=importance,
        label_places=label_places(batch, device),
        num_items_in_batch=1,
        adds_aux_loss=False,
        logits_to_keep=1,
    )
    return with_sides(output.loss, batch, output)


def _of_others(model: PreTrainedModel, batch: Batch) -> Losses:
    device = device_of(model)
    labels = to_device(batch.labels, device)
    output = model(**model_inputs(model, batch), use_cache=False)
    logits = at_least_float32(output.logits)
    nats = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    if batch.weights is not None:
        nats = nats * to_device(batch.weights, device).flatten()
    return with_sides(nats.sum(), batch, output, getattr(model.config, "router_aux_loss_coef", 1.0))


def with_sides(summed: Tensor, batch: Batch, output: object, scale: float = 1.0) -> Losses:
    """Collect the summed loss, the model output's auxiliary loss times `scale`, and its metrics.

    An auxiliary loss is a mean over a part: parts of a batch are weighted by their labels.
    """
    auxiliary = getattr(output, "aux_loss", None)
    if isinstance(auxiliary, Tensor):
        auxiliary = batch.total_weight * scale * auxiliary
    else:
        auxiliary = None  # a model may return 0 here if its router's logits were not requested
    metrics = getattr(output, "metrics", None) or {}
    return Losses(summed, {name: value.detach() for name, value in metrics.items()}, auxiliary)
