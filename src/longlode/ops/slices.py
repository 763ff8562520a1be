"""Slices of a long tensor, taken one after another, whose gradient costs no more than the slices themselves.

The derivative of a plain slice is a tensor of zeros of the whole length. A loop that cuts a row of T tokens into T / C
slices therefore spends O(T^2 / C) on zeros in the backward pass, which at 262,144 tokens is nearly all of its time.
"""

from typing import Any

import torch

from longlode.ops.surroundings import Interface, required_interface


class Slices:
    """Slices of `x` along `dim`; they may overlap, and be taken in any order.

    Gradients of all slices are summed in one tensor of the size of `x`, in place, each as soon as it is known. Second
    derivatives work as those of plain slices, at their cost. Under torch.compile, transforms of torch.func and
    forward-mode derivatives the slices are plain ones.
    """

    def __init__(self, x: torch.Tensor, dim: int = 1) -> None:
        """Prepare slices of `x` (any shape) along its dimension `dim`."""
        self._rest = x
        self._dim = dim
        compiling = torch.compiler.is_compiling()
        differentiable = x.requires_grad and torch.is_grad_enabled() and not compiling
        self._linked = differentiable and required_interface([x])[0] < Interface.OPERATIONS

    def take(self, start: int, end: int) -> torch.Tensor:
        """Return a view of the entries `start` to `end - 1`, with 0 <= start <= end <= the size of the dimension."""
        # Without gradients the rest would lose its own.
        if not (self._linked and torch.is_grad_enabled()):
            return self._rest.narrow(self._dim, start, end - start)
        part: torch.Tensor
        # The next slice is taken from what this one leaves, so that in the backward pass one node hands the sum of
        # the gradients to the other.
        part, self._rest = _Slice.apply(self._rest, self._dim, start, end)
        return part


class _Slice(torch.autograd.Function):
    """Return a slice of x, and x for the next slice; the gradient of the slice is added to that of the rest."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, dim: int, start: int, end: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.set_materialize_grads(False)
        ctx.place = (dim, start, end - start)
        ctx.shape = x.shape
        return x.narrow(*ctx.place), x.view_as(x)

    @staticmethod
    def backward(
        ctx: Any, part: torch.Tensor | None, rest: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, None, None, None]:
        if part is None:
            return rest, None, None, None
        if rest is None:
            # `rest` of the last slice is not used: the sum begins here.
            rest = part.new_zeros(ctx.shape)
        elif torch.is_grad_enabled():
            rest = rest.clone()
        # In place, because no other node receives this sum; a graph of the gradient itself keeps its values instead.
        rest.narrow(*ctx.place).add_(part)
        return rest, None, None, None
