"""Model FLOPs utilisation (MFU): the arithmetic of a step over what the devices could do in its time."""

import numpy as np
import torch
from transformers import PreTrainedModel

from longlode.core.batch import Batch
from longlode.models import LonglodeForCausalLM


class Usage:
    """Counts the operations of steps by the model's own formulas; recomputed activations are not counted."""

    def __init__(self, model: PreTrainedModel, flops_per_second: float) -> None:
        """Args: flops_per_second: of all ranks together, by a measured matrix product in the run's dtype."""
        self._model = model
        self._rate = flops_per_second
        self._per_token: dict[int, float] = {}
        # Of a model of transformers nothing but its matrices is known: 2 operations per parameter and token.
        embeddings = {
            id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)
        }
        head = model.get_output_embeddings()
        tied = head is not None and id(head.weight) in embeddings
        kept = [p for p in model.parameters() if id(p) not in embeddings or tied]
        self._matrices = 2.0 * sum(parameter.numel() for parameter in kept)

    def step_flops(self, batch: Batch) -> float:
        """Return the operations of forward and backward: three times the forward's, each document by its length."""
        if batch.cu_seqlens is None:
            lengths = np.full(len(batch.tokens), batch.tokens.shape[1])
        else:
            lengths = np.diff(batch.cu_seqlens)
        found, counts = np.unique(lengths, return_counts=True)
        return 3.0 * sum(
            int(length) * int(count) * self._flops_per_token(int(length))
            for length, count in zip(found, counts, strict=True)
        )

    def mfu(self, batch: Batch, seconds: float) -> float:
        """Return the share of the matrix rate that a step of so many seconds used, about 0 to 1."""
        return self.step_flops(batch) / (self._rate * max(seconds, 1e-9))

    def _flops_per_token(self, length: int) -> float:
        if not isinstance(self._model, LonglodeForCausalLM):
            return self._matrices
        if length not in self._per_token:
            self._per_token[length] = self._model.flops_per_token(length)
        return self._per_token[length]
