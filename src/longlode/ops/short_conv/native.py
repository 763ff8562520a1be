"""The convolution, its activation and the norm of its heads in one compiled pass, with a backward of its own."""

import itertools
from typing import Any

import torch

from longlode.ops import rowwise
from longlode.ops.packed import kept
from longlode.ops.short_conv.shifts import activated, convolve

_SEGMENT = 512
"""Tokens of a piece of work: enough of them for several threads, and few enough to sum gradients of weights exactly."""
_GROUP = 64
"""Channels of a piece of work without norms: as many as keep a tile in the first cache."""


def conv_native(
    x: torch.Tensor,
    weight: torch.Tensor,
    state: torch.Tensor | None,
    offsets: tuple[int, ...] | None,
    activation: str | None,
    unit_norm: int | None,
    eps: float,
    instruction_set: str | None = None,
) -> torch.Tensor:
    """Compute y of `short_conv`, `[B, T, D]` in x.dtype, float32 or bfloat16."""
    y: torch.Tensor = _NativeShortConv.apply(
        x, weight, state, (offsets, activation, unit_norm, eps), instruction_set
    )
    return y


def conv_torch(
    x: torch.Tensor,
    weight: torch.Tensor,
    state: torch.Tensor | None,
    offsets: tuple[int, ...] | None,
    activation: str | None,
    unit_norm: int | None,
    eps: float,
) -> torch.Tensor:
    """As `conv_native`, by torch's operations, in any dtype."""
    return activated(convolve(x, weight, state, offsets), activation, unit_norm, eps).to(x.dtype)


@kept
def _segments(offsets: tuple[int, ...] | None, B: int, T: int) -> torch.Tensor:
    """Cut documents into segments: int64 `[S, 6]`, row, document, its start and end, the segment's start and end."""
    if offsets is None:
        documents = [(row, 0, T) for row in range(B)]
    else:
        documents = [(0, start, end) for start, end in itertools.pairwise(offsets)]
    found = [
        (row, number, start, end, first, min(first + _SEGMENT, end))
        for number, (row, start, end) in enumerate(documents)
        for first in range(start, end, _SEGMENT)
    ]
    return torch.tensor(found, dtype=torch.int64, device="cpu")


def _tap_by_tap(x: torch.Tensor) -> torch.Tensor:
    """Return `[..., D, taps]` as float32 `[..., taps, D]`, so that neighbours in memory are channels."""
    return x.float().transpose(-1, -2).contiguous()


class _NativeShortConv(torch.autograd.Function):
    """Forward and backward through the library. The backward computes the convolution again from x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        state: torch.Tensor | None,
        settings: tuple[Any, ...],
        instruction_set: str | None,
    ) -> torch.Tensor:
        x = x if x.stride(-1) == 1 else x.contiguous()
        y = torch.empty(x.shape, dtype=x.dtype, device="cpu")
        ctx.save_for_backward(x, weight, state)
        ctx.settings, ctx.instruction_set = settings, instruction_set
        taps = _tap_by_tap(weight)
        before = None if state is None else _tap_by_tap(state)
        call, _alive = _call(x, taps, before, settings)
        call.y = rowwise.rows_of(y)
        rowwise.run("conv_forward", call, instruction_set)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, state = ctx.saved_tensors
        if torch.is_grad_enabled():
            found = rowwise.gradients_by_torch(
                lambda *inputs: conv_torch(*inputs, *ctx.settings), (x, weight, state), dy
            )
            return (*found, None, None)
        dy = dy if dy.stride(-1) == 1 else dy.contiguous()
        taps = _tap_by_tap(weight)
        before = None if state is None else _tap_by_tap(state)
        dx = torch.empty(x.shape, dtype=x.dtype, device="cpu") if ctx.needs_input_grad[0] else None
        dtaps = torch.empty_like(taps)
        dbefore = torch.empty_like(before) if before is not None and ctx.needs_input_grad[2] else None
        call, _alive = _call(x, taps, before, ctx.settings)
        call.dy = rowwise.rows_of(dy)
        if dx is not None:
            call.dx = rowwise.rows_of(dx)
        call.dweight, call.dstate = rowwise.pointer(dtaps), rowwise.pointer(dbefore)
        rowwise.run("conv_backward", call, ctx.instruction_set)
        dstate = None if dbefore is None else dbefore.transpose(1, 2).to(state.dtype)
        return dx, dtaps.transpose(0, 1).to(weight.dtype), dstate, None, None


def _call(
    x: torch.Tensor, taps: torch.Tensor, before: torch.Tensor | None, settings: tuple[Any, ...]
) -> tuple[rowwise.ConvCall, torch.Tensor]:
    """Return what forward and backward have in common, and a tensor that must outlive the call."""
    offsets, activation, unit_norm, eps = settings
    segments = _segments(offsets, x.shape[0], x.shape[1])
    W, D = taps.shape
    call = rowwise.ConvCall(
        x=rowwise.rows_of(x),
        weight=taps.data_ptr(),
        state=rowwise.pointer(before),
        segments=segments.data_ptr(),
        num_segments=len(segments),
        D=D,
        W=W,
        group=unit_norm or _GROUP,
        num_normed=D if unit_norm else 0,
        silu=int(activation == "silu"),
        eps=eps,
    )
    return call, segments


def _check_inputs(dtype: torch.dtype) -> dict[str, Any]:
    # Three documents, one shorter than the taps, one longer than a segment; heads of no whole vector.
    draw = torch.Generator("cpu").manual_seed(0)
    offsets = (0, 2, 40, _SEGMENT + 61)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, device="cpu").to(dtype).requires_grad_()

    inputs = {"x": normal(1, offsets[-1], 40), "weight": normal(40, 4), "state": normal(3, 40, 3)}
    return {**inputs, "offsets": offsets, "activation": "silu", "unit_norm": 20, "eps": 1e-6}


BACKENDS = rowwise.backends("short_conv", conv_native, conv_torch, _check_inputs)
