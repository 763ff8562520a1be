"""RMSNorm (arXiv 1910.07467), forward and backward in one pass each."""

from typing import Any

import torch

from longlode.ops import rowwise
from longlode.ops.surroundings import resolved


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Compute x / sqrt(mean(x^2) + eps) * weight along the last dimension: x `[..., D]`, weight `[D]`.

    dtype: that of the result; None: x's.
    Compiled for large tensors of float32 or bfloat16 on the CPU, with arithmetic in float32; else in torch.
    """
    dtype = dtype or x.dtype
    if x.device.type != "cpu" or x.numel() < rowwise.LEAST_NUMBERS:
        return rms_norm_torch(x, weight, eps, dtype)
    inputs = tuple(map(resolved, (x, weight)))
    reason = "the weight is float64" if weight.dtype == torch.float64 else ""
    chosen = BACKENDS.pick("auto", inputs, x.device, rowwise.Request((x.dtype, dtype), reason))
    y: torch.Tensor = chosen.run(*inputs, eps, dtype)
    return y


def rms_norm_torch(
    x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """As `rms_norm`, by torch's operation, rounded to x's dtype before the result's."""
    return torch.nn.functional.rms_norm(x, weight.shape, weight.to(x.dtype), eps).to(dtype or x.dtype)


def rms_norm_native(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    dtype: torch.dtype | None = None,
    instruction_set: str | None = None,
) -> torch.Tensor:
    """As `rms_norm`, by the compiled kernels."""
    y: torch.Tensor = _NativeRMSNorm.apply(x, weight, eps, dtype or x.dtype, instruction_set)
    return y


class _NativeRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        dtype: torch.dtype,
        instruction_set: str | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings = (eps, dtype, instruction_set)
        rows, scale = rowwise.as_rows(x), weight.float().contiguous()
        y = torch.empty(rows.shape, dtype=dtype, device="cpu")
        call = _call(rows, scale, eps)
        call.y = rowwise.rows_of(y)
        rowwise.run("norm_forward", call, instruction_set)
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        eps, dtype, instruction_set = ctx.settings
        if torch.is_grad_enabled():
            found = rowwise.gradients_by_torch(
                lambda x, weight: rms_norm_torch(x, weight, eps, dtype), (x, weight), dy
            )
            return (*found, None, None, None)
        rows, slope, scale = rowwise.as_rows(x), rowwise.as_rows(dy), weight.float().contiguous()
        dx = torch.empty(rows.shape, dtype=x.dtype, device="cpu")
        dscale = torch.empty_like(scale)
        call = _call(rows, scale, eps)
        call.dy, call.dx, call.dweight = rowwise.rows_of(slope), rowwise.rows_of(dx), dscale.data_ptr()
        rowwise.run("norm_backward", call, instruction_set)
        return dx.view(x.shape), dscale.to(weight.dtype), None, None, None


def _call(rows: torch.Tensor, scale: torch.Tensor, eps: float) -> rowwise.NormCall:
    return rowwise.NormCall(
        x=rowwise.rows_of(rows), weight=scale.data_ptr(), num_rows=len(rows), D=rows.shape[1], eps=eps
    )


def _check_inputs(dtype: torch.dtype) -> dict[str, Any]:
    draw = torch.Generator("cpu").manual_seed(0)
    x, weight = (torch.randn(*shape, generator=draw, device="cpu") for shape in ((600, 40), (40,)))
    return {"x": x.to(dtype).requires_grad_(), "weight": weight.requires_grad_(), "eps": 1e-6}


BACKENDS = rowwise.backends("rms_norm", rms_norm_native, rms_norm_torch, _check_inputs)
