"""A scan over chunks of tokens that keeps the carry before each chunk alone and computes the rest again backward.

For mixers whose chunks need far more memory than their states. `torch.utils.checkpoint` around every chunk keeps small
tensors between large freed ones, which the heap cannot return: a multiple of what is alive. Here everything that is
kept lies in one tensor. Gradients of chunks that overlap are added in place; as slices of one tensor each of them
would be as long as the text.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from longlode.ops.surroundings import Interface, required_interface

Step = Callable[[int, Sequence[Tensor], Sequence[Tensor]], tuple[Tensor, Sequence[Tensor]]]
"""(number of the chunk, its part of the inputs, the carry before it) -> (its output, the carry after it)."""

Spans = Sequence[Sequence[tuple[int, int]]]
"""The entries (from, up to) that each chunk reads of each input."""

_TIME = 2  # the dimension of tokens, as in [N, H, T, K]


def scan_chunks(
    step: Step, spans: Spans, inputs: Sequence[Tensor], carry: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Apply `step` to chunk after chunk.

    Args:
      step: must give the same result when it is called again; gradients flow through its inputs and its carry alone.
      spans: of each chunk; chunks may overlap in what they read.
      inputs: floating-point tensors `[N, H, T_i, ...]`.
      carry: floating-point tensors of one dtype, of any shapes, which stay the same.

    Returns: the outputs of all chunks, joined along dimension 2, and the carry after the last.
    """
    tensors = [*inputs, *carry]
    differentiable = torch.is_grad_enabled() and any(one.requires_grad for one in tensors)
    # Transforms of torch.func need plain operations.
    if differentiable and required_interface(tensors)[0] < Interface.OPERATIONS:
        o, *last = _Scan.apply(step, spans, len(inputs), *tensors)
        return o, tuple(last)
    return _run(step, spans, inputs, carry, None)


def _run(
    step: Step, spans: Spans, inputs: Sequence[Tensor], carry: Sequence[Tensor], kept: Tensor | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Compute what `scan_chunks` returns; row k of `kept` gets the carry before chunk k."""
    outputs = []
    for k, span in enumerate(spans):
        if kept is not None:
            torch.cat([one.flatten() for one in carry], out=kept[k])
        o, carry = step(k, _part(inputs, span), carry)
        outputs.append(o)
    return torch.cat(outputs, _TIME), tuple(carry)


def _part(inputs: Sequence[Tensor], span: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Cut the entries of a chunk out of each input."""
    return [x[:, :, start:stop] for x, (start, stop) in zip(inputs, span, strict=True)]


class _Scan(torch.autograd.Function):
    """`scan_chunks` with gradients."""

    @staticmethod
    def forward(ctx: Any, step: Step, spans: Spans, num_inputs: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs, carry = tensors[:num_inputs], tensors[num_inputs:]
        kept = carry[0].new_empty(len(spans), sum(one.numel() for one in carry))
        o, last = _run(step, spans, inputs, carry, kept)
        ctx.save_for_backward(kept, *inputs)
        ctx.step, ctx.spans, ctx.shapes = step, spans, [one.shape for one in carry]
        return o, *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor, *dcarry: Tensor) -> tuple[Any, ...]:
        kept, *inputs = ctx.saved_tensors
        sizes = [shape.numel() for shape in ctx.shapes]
        d_inputs = [torch.zeros_like(x) for x in inputs]
        end = do.shape[_TIME]
        for k, span in reversed(list(enumerate(ctx.spans))):
            slots = zip(kept[k].split(sizes), ctx.shapes, strict=True)
            with torch.enable_grad():
                part = [x.detach().requires_grad_() for x in _part(inputs, span)]
                before = [slot.view(shape).detach().requires_grad_() for slot, shape in slots]
                o, after = ctx.step(k, part, before)
            # Outputs lie one after the other: chunk k's end where those of the next begin.
            begin = end - o.shape[_TIME]
            results = zip((o, *after), (do[:, :, begin:end], *dcarry), strict=True)
            outputs, d_outputs = zip(*(pair for pair in results if pair[0].requires_grad), strict=True)
            grads = torch.autograd.grad(outputs, (*part, *before), d_outputs, materialize_grads=True)
            for whole, piece in zip(_part(d_inputs, span), grads[: len(part)], strict=True):
                whole += piece
            dcarry, end = grads[len(part) :], begin
        return None, None, None, *d_inputs, *dcarry
