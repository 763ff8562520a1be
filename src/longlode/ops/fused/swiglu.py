"""The product at the heart of SwiGLU (arXiv 2002.05202), forward and backward in one pass each."""

from typing import Any

import torch

from longlode.ops import rowwise
from longlode.ops.surroundings import resolved


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Compute silu(gate) * up, both `[..., D]` of one shape and dtype.

    Compiled for large tensors of float32 or bfloat16 on the CPU, rounded once; else in torch, rounded twice.
    """
    if gate.device.type != "cpu" or gate.numel() < rowwise.LEAST_NUMBERS or gate.shape != up.shape:
        return swiglu_torch(gate, up)
    inputs = tuple(map(resolved, (gate, up)))
    chosen = BACKENDS.pick("auto", inputs, gate.device, rowwise.Request((gate.dtype, up.dtype)))
    y: torch.Tensor = chosen.run(*inputs)
    return y


def swiglu_torch(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """As `swiglu`, by torch's operations."""
    return torch.nn.functional.silu(gate) * up


def swiglu_native(gate: torch.Tensor, up: torch.Tensor, instruction_set: str | None = None) -> torch.Tensor:
    """As `swiglu`, by the compiled kernels."""
    y: torch.Tensor = _NativeSwiGLU.apply(gate, up, instruction_set)
    return y


class _NativeSwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, instruction_set: str | None) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        ctx.instruction_set = instruction_set
        rows = [rowwise.as_rows(x) for x in (gate, up)]
        y = torch.empty(rows[0].shape, dtype=torch.promote_types(gate.dtype, up.dtype), device="cpu")
        call = _call(*rows)
        call.y = rowwise.rows_of(y)
        rowwise.run("swiglu_forward", call, instruction_set)
        return y.view(gate.shape)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*rowwise.gradients_by_torch(swiglu_torch, (gate, up), dy), None)
        rows, slope = [rowwise.as_rows(x) for x in (gate, up)], rowwise.as_rows(dy)
        dgate, dup = (torch.empty(x.shape, dtype=x.dtype, device="cpu") for x in rows)
        call = _call(*rows)
        call.dy, call.dgate, call.dup = (rowwise.rows_of(x) for x in (slope, dgate, dup))
        rowwise.run("swiglu_backward", call, ctx.instruction_set)
        return dgate.view(gate.shape), dup.view(up.shape), None


def _call(gate: torch.Tensor, up: torch.Tensor) -> rowwise.SwigluCall:
    return rowwise.SwigluCall(
        gate=rowwise.rows_of(gate), up=rowwise.rows_of(up), num_rows=len(gate), D=gate.shape[1]
    )


def _check_inputs(dtype: torch.dtype) -> dict[str, Any]:
    draw = torch.Generator("cpu").manual_seed(0)
    gate, up = (4 * torch.randn(50, 40, generator=draw, device="cpu") for _ in range(2))
    return {"gate": gate.to(dtype).requires_grad_(), "up": up.to(dtype).requires_grad_()}


BACKENDS = rowwise.backends("swiglu", swiglu_native, swiglu_torch, _check_inputs)
