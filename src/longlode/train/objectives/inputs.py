"""A batch as a model's inputs on its device, and what objectives read of a model besides its loss."""

from dataclasses import dataclass
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
from longlode.parallel import Piece
from longlode.train.sequence import Sharing, sharing_of


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


@dataclass(frozen=True)
class Asked:
    """The labels of a batch that this rank is asked: all, or where ranks share the rows those of its piece.

    inputs: of the model. places: of the n labels in the flattened positions that this rank reads, int64 `[n]`. labels:
    int64 `[n]`. weights: float `[n]`, or 1 where the batch has none.
    """

    inputs: dict[str, Any]
    places: Tensor
    labels: Tensor
    weights: Tensor
    _shape: tuple[int, ...]
    _piece: Piece | None = None
    _sharing: Sharing | None = None

    @classmethod
    def of(cls, model: PreTrainedModel, batch: Batch, sharing: Sharing | None = None) -> "Asked":
        """Find the labels. sharing: how ranks share the rows; None: as they do now, see `sharing_of`.

        Raises: ConfigError if ranks share the rows and the model is none of longlode.
        """
        inputs, device, piece = model_inputs(model, batch), device_of(model), None
        labels = torch.from_numpy(batch.labels)
        weights = torch.ones(()) if batch.weights is None else torch.from_numpy(batch.weights)
        sharing = sharing_of(model) if sharing is None else sharing
        if sharing is not None:
            if not isinstance(model, LonglodeForCausalLM):
                raise sharing.refused(f"predictions of a {type(model).__name__}, no model of longlode,")
            piece, inputs = sharing.cut(inputs)
            labels = piece.take(labels, IGNORED)
            weights = piece.take(weights) if weights.ndim else weights
        # Counted on the host, so that no device is asked.
        places = (labels != IGNORED).flatten().nonzero()[:, 0]
        weights = weights.flatten()[places] if weights.ndim else weights
        labels = send(labels.flatten()[places], device)
        shape = tuple(batch.labels.shape)
        return cls(inputs, send(places, device), labels, send(weights, device), shape, piece, sharing)

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of x over the ranks that share the rows; no gradient passes."""
        return x.detach() if self._sharing is None else self._sharing.sum(x)

    def whole(self, values: Tensor) -> Tensor:
        """Return values `[n]` of the labels at their places in `[B, T]`, 0 elsewhere, on all ranks that share them."""
        if self._piece is None or self._sharing is None:
            return (
                values.new_zeros(self._shape).flatten().index_copy(0, self.places, values).view(self._shape)
            )
        here = (self._shape[0], self._piece.num_tokens)
        own = values.new_zeros(here).flatten().index_copy(0, self.places, values).view(here)
        found = values.new_zeros(self._shape)
        self._piece.put(own, found)
        return self._sharing.sum(found)


def asked_logits(model: PreTrainedModel, asked: Asked, **options: Any) -> tuple[Tensor, Any]:
    """Run the whole model; return the logits `[n, V]` of the positions with a label, and the output.

    All logits of the part are held at once: cut batches for memory with data.micro_batch_size.
    """
    output = model(**asked.inputs, use_cache=False, **options)
    return at_least_float32(output.logits.flatten(0, 1)[asked.places]), output


def label_nats(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return -log p of every label, float `[B, T]`, 0 where there is none; without gradients.

    Where ranks share the rows, all of them get the whole.
    """
    asked = Asked.of(model, batch)
    with torch.no_grad():
        logits, _ = asked_logits(model, asked)
        return asked.whole(functional.cross_entropy(logits, asked.labels, reduction="none"))


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """Return the list of a model's blocks. Raises: ConfigError for a model in which it is not to be found."""
    layers = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers:
            return module
    raise ConfigError(f"{type(model).__name__} has no list of its {layers} blocks; layers cannot be matched.")
