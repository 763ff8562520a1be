"""Backwards written by hand have no derivative of their own; asking for one must raise, not give zeros."""

from collections.abc import Callable
from typing import Any

import torch

from longlode.core.errors import BackendError


class FirstOrderOnly(torch.autograd.Function):
    """Passes gradients through, tied to what they depend on; differentiating them raises BackendError.

    `apply(backend, num, *gradients, *inputs)` gives the first `num` tensors; `backend` is for the message.
    """

    @staticmethod
    def forward(
        ctx: Any, backend: str, num: int, *tensors: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients as they are."""
        ctx.backend = backend
        return tensors[:num]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Raise."""
        raise BackendError(
            f"delta_rule backend {ctx.backend!r} has no second derivative, and one was asked for; "
            "use backend='reference', which autograd differentiates as often as asked."
        )


def first_order(
    backend: str,
    backward: Callable[..., tuple[torch.Tensor | None, ...]],
    ctx: Any,
    *grads_of_outputs: torch.Tensor | None,
) -> tuple[torch.Tensor | None, ...]:
    """`backward(ctx, *grads_of_outputs)` without a graph, tied to what it depends on where a graph is asked for.

    torch's once_differentiable drops the graph where the gradient of the output has none, and stays silent.
    """
    with torch.no_grad():
        grads = backward(ctx, *grads_of_outputs)
    if not torch.is_grad_enabled():
        return grads
    tied: tuple[torch.Tensor | None, ...] = FirstOrderOnly.apply(
        backend, len(grads), *grads, *grads_of_outputs, *ctx.saved_tensors
    )
    return tied
