"""Backwards written by hand have no derivative of their own; asking for one must raise, not give zeros."""

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
