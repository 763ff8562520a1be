"""short_conv: the depthwise causal convolution in front of the recurrent mixers, with a state for decoding.

May import: core, torch, and the ops' shared modules. Start reading: `short_conv` below, then `shifts.py` (the
arithmetic in torch) and `native.py` (compiled, for CPUs).
"""

import torch

from longlode.core.errors import ConfigError
from longlode.core.shapes import check_shape
from longlode.ops.dtypes import at_least_float32
from longlode.ops.packed import Offsets, document_offsets
from longlode.ops.rowwise import MAX_GROUP, MAX_TAPS, Request
from longlode.ops.short_conv.native import BACKENDS
from longlode.ops.short_conv.shifts import activated, last_inputs
from longlode.ops.surroundings import resolved

__all__ = ["short_conv", "short_conv_step"]


def short_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    state: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | Offsets | None = None,
    activation: str | None = "silu",
    unit_norm: int | None = None,
    eps: float = 1e-6,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Depthwise causal convolution: y_t = f(sum_i weight[:, i] * x_{t - W + 1 + i}), W taps, the last on x_t.

    With `unit_norm` = K each K consecutive channels of f are then divided by the root of their squared length plus eps.

    Args:
      x: `[B, T, D]`.
      weight: `[D, W]`, one filter per channel.
      state: `[N, D, W - 1]`, the inputs before the first token of each document, oldest first; None is zeros.
      cu_seqlens: integer `[N + 1]`, or `ops.packed.Offsets`: token offsets of N packed documents; B must be 1.
        Row n of `state` belongs to document n. Without it N = B.
      activation: f, "silu" or None.
      unit_norm: K, a divisor of D; None: no division.
    Returns: y `[B, T, D]` in x.dtype, and the last W - 1 inputs of each document `[N, D, W - 1]` (with the
      incoming state or zeros in front when the document is shorter). Sums and f are formed in float32 at least,
      and rounded once; in bfloat16 and float16 packed documents give bitwise the results of separate ones. Gradients
      flow to x, weight and state, through both results.
    float32 and bfloat16 on the CPU run in the compiled kernels (`ops/rowwise.py`), where these are there and agreed
    with torch; all else, and second derivatives, in torch.
    Raises: ConfigError on shapes, offsets or an unknown activation.
    Cost: O(T D W) time.
    """
    sizes: dict[str, int] = {}
    check_shape("x", x, "B T D", sizes)
    check_shape("weight", weight, "D W", sizes)
    _check_activation(activation)
    for name, what in (("B", "rows"), ("T", "tokens")):
        if sizes[name] == 0:
            raise ConfigError(f"x has {name} = 0 {what}; expected at least 1.")
    offsets = document_offsets(cu_seqlens, sizes["B"], sizes["T"])
    sizes["N"] = sizes["B"] if offsets is None else len(offsets) - 1
    if state is not None:
        _check_state(state, weight, sizes)
    _check_norm(unit_norm, sizes["D"])
    inputs = tuple(map(resolved, (x, weight, state)))
    chosen = BACKENDS.pick("auto", inputs, x.device, _request(x, weight, unit_norm))
    y = chosen.run(*inputs, offsets, activation, unit_norm, eps)
    return y, last_inputs(x, weight.shape[1] - 1, state, offsets)


def short_conv_step(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    state: torch.Tensor,
    activation: str | None = "silu",
    unit_norm: int | None = None,
    eps: float = 1e-6,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advance `short_conv` by one token, for decoding: x `[B, D]`, state `[B, D, W - 1]`.

    Returns: y `[B, D]` and the new state (a new tensor). Raises: ConfigError as `short_conv`.
    """
    sizes: dict[str, int] = {}
    check_shape("x", x, "N D", sizes)
    check_shape("weight", weight, "D W", sizes)
    _check_activation(activation)
    _check_state(state, weight, sizes)
    _check_norm(unit_norm, sizes["D"])
    window = torch.cat((state.to(x.dtype), x[:, :, None]), dim=2)
    y = activated((at_least_float32(window) * at_least_float32(weight)).sum(-1), activation, unit_norm, eps)
    return y.to(x.dtype), window[:, :, 1:]


def _check_activation(activation: str | None) -> None:
    if activation not in ("silu", None):
        raise ConfigError(f"activation is {activation!r}; expected 'silu' or None.")


def _check_norm(unit_norm: int | None, num_channels: int) -> None:
    if unit_norm is not None and (unit_norm < 1 or num_channels % unit_norm):
        raise ConfigError(f"unit_norm is {unit_norm}; expected a divisor of D = {num_channels}, or None.")


def _request(x: torch.Tensor, weight: torch.Tensor, unit_norm: int | None) -> Request:
    """Describe a call to its backends. The weight and the state may be of any dtype, which is widened."""
    reason = ""
    if weight.shape[1] > MAX_TAPS or (unit_norm or 0) > MAX_GROUP:
        reason = f"more than {MAX_TAPS} taps, or heads of more than {MAX_GROUP} channels"
    if weight.dtype == torch.float64:
        reason = "the weight is float64"
    return Request((x.dtype,), reason)


def _check_state(state: torch.Tensor, weight: torch.Tensor, sizes: dict[str, int]) -> None:
    check_shape("state", state, "N D P", {**sizes, "P": weight.shape[1] - 1})
