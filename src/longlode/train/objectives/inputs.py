"""A batch as a model's inputs on its device, and what objectives read of a model besides its loss."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from longlode.core.batch import Batch
from longlode.core.errors import ConfigError
from longlode.mixers.norm import at_least_float32
from longlode.models import LonglodeForCausalLM
from longlode.models.loss import IGNORED
from longlode.ops.packed import Offsets, send


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's parameters."""
    return next(model.parameters()).device


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy an array to a device; the host does not wait for it."""
    return send(torch.from_numpy(array), device)


def label_places(batch: Batch, device: torch.device) -> Tensor:
    """Return where the labels are in the flattened `[B * T]`, int64 `[n]`: counted here, so that no device is asked."""
    return to_device(np.flatnonzero(batch.labels != IGNORED), device)


def model_inputs(model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
    """Return the keyword inputs of a batch: input_ids, and what keeps packed documents apart.

    For a longlode model that is cu_seqlens; for one of transformers, positions that begin again at 0.
    """
    device = device_of(model)
    inputs = {"input_ids": to_device(batch.tokens, device)}
    if batch.cu_seqlens is None:
        return inputs
    edges = Offsets.send(batch.cu_seqlens.tolist(), device)
    if isinstance(model, LonglodeForCausalLM):
        return inputs | {"cu_seqlens": edges}
    places = torch.arange(batch.tokens.shape[1], device=device)
    starts = edges[:-1].repeat_interleave(edges.diff(), output_size=batch.tokens.shape[1])
    return inputs | {"position_ids": (places - starts)[None]}


def asked_logits(model: PreTrainedModel, batch: Batch, **options: Any) -> tuple[Tensor, Tensor, Any]:
    """Run the whole model; return the logits `[n, V]` of the n positions with a label, the labels, and the output.

    All logits of the part are held at once: cut batches for memory with data.micro_batch_size.
    """
    device = device_of(model)
    output = model(**model_inputs(model, batch), use_cache=False, **options)
    places = label_places(batch, device)
    labels = to_device(batch.labels, device).flatten()[places]
    return at_least_float32(output.logits.flatten(0, 1)[places]), labels, output


def label_nats(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return -log p of every label, float `[B, T]`, 0 where there is none; without gradients."""
    with torch.no_grad():
        logits, labels, _ = asked_logits(model, batch)
        nats = functional.cross_entropy(logits, labels, reduction="none")
    found = nats.new_zeros(batch.labels.size)
    return found.index_copy(0, label_places(batch, nats.device), nats).view(batch.labels.shape)


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """Return the list of a model's blocks. Raises: ConfigError for a model in which it is not to be found."""
    layers = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers:
            return module
    raise ConfigError(f"{type(model).__name__} has no list of its {layers} blocks; layers cannot be matched.")
