"""Next-token cross entropy from hidden states, without ever holding all logits."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from longlode.mixers.norm import at_least_float32

IGNORED = -100
_CHUNK_LOGITS = 1 << 24  # numbers in one block of logits: 64 MiB in float32


class _HeadCrossEntropy(torch.autograd.Function):
    """Summed cross entropy of `softmax(hidden weight^T)`, block by block of rows.

    The gradient of the sum is known once the logits of a block are, so forward makes it and keeps only
    gradients of the size of hidden and weight; no block of logits outlives its turn, none is computed twice.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """Hidden `[n, D]`, weight `[V, D]`, targets int64 `[n]` -> the sum over n, in nats."""
        compute = weight.to(hidden.dtype)
        rows = max(1, _CHUNK_LOGITS // weight.shape[0])
        total = at_least_float32(hidden).new_zeros(())
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            logits = at_least_float32(hidden[part] @ compute.T)
            total += functional.cross_entropy(logits, targets[part], reduction="sum")
            if grad_hidden is None and grad_weight is None:
                continue
            slope = logits.softmax(-1)
            slope[torch.arange(len(slope), device=slope.device), targets[part]] -= 1
            slope = slope.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = slope @ compute
            if grad_weight is not None:
                grad_weight += (slope.T @ hidden[part]).to(weight.dtype)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Scale the gradients that forward made."""
        of_hidden, of_weight = (None if g is None else g * grad_total.to(g.dtype) for g in ctx.saved_tensors)
        return of_hidden, of_weight, None


def next_token_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, num_items: Tensor | int | None = None
) -> Tensor:
    """Mean cross entropy in nats of the targets that are asked for.

    Args:
      hidden: `[B, T, D]` final hidden states.
      weight: `[V, D]` of the head.
      targets: int64 `[B, T]`, the token that should follow each position; -100 where nothing is asked.
      num_items: divide the sum by this instead of the number of targets (gradient accumulation).
    Returns: a scalar, float32 or float64; 0 when nothing is asked.
    """
    asked = targets != IGNORED
    total = _HeadCrossEntropy.apply(hidden[asked], weight, targets[asked])
    return total / (asked.sum().clamp(min=1) if num_items is None else num_items)
