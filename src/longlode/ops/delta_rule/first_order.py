"""Wrapper for hand-written backwards, which have no derivative: asking for one raises instead of giving zeros."""

from collections.abc import Callable
from typing import Any

import torch

from longlode.core.errors import BackendError


class FirstOrderOnly(torch.autograd.Function):
    """Identity on gradients that keeps their dependence on the inputs; differentiating it raises BackendError.

    `apply(backend, num, *gradients, *inputs)` gives the first `num` tensors; `backend` is for the message.
    """

    @staticmethod
    def forward(
        ctx: Any, backend: str, num: int, *tensors: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients unchanged."""
        ctx.backend = backend
        return tensors[:num]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Raise BackendError."""
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
    """Call `backward(ctx, *grads_of_outputs)` without a graph, wrapped in `FirstOrderOnly` if a graph is requested.

    torch's once_differentiable silently drops the graph if the gradient of the output has none.
    """
    with torch.no_grad():
        grads = backward(ctx, *grads_of_outputs)
    if not torch.is_grad_enabled():
        return grads
    tied: tuple[torch.Tensor | None, ...] = FirstOrderOnly.apply(
        backend, len(grads), *grads, *grads_of_outputs, *ctx.saved_tensors
    )
    return tied
