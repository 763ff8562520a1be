"""short_conv: the depthwise causal convolution in front of the recurrent mixers, with a state for decoding.

May import: core and torch. Start reading: `short_conv` below, then `shifts.py` (the arithmetic).
"""

import torch

from longlode.core.errors import ConfigError
from longlode.core.shapes import check_shape
from longlode.ops.packed import Offsets, document_offsets
from longlode.ops.short_conv.shifts import convolve, last_inputs, wide

__all__ = ["short_conv", "short_conv_step"]


def short_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    state: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | Offsets | None = None,
    activation: str | None = "silu",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Depthwise causal convolution: y_t = f(sum_i weight[:, i] * x_{t - W + 1 + i}), W taps, the last on x_t.

    Args:
      x: `[B, T, D]`.
      weight: `[D, W]`, one filter per channel.
      state: `[N, D, W - 1]`, the inputs before the first token of each document, oldest first; None is zeros.
      cu_seqlens: integer `[N + 1]`, or `ops.packed.Offsets`: token offsets of N packed documents; B must be 1.
        Row n of `state` belongs to document n. Without it N = B.
      activation: f, "silu" or None.
    Returns: y `[B, T, D]` in x.dtype, and the last W - 1 inputs of each document `[N, D, W - 1]` (with the
      incoming state or zeros in front when the document is shorter). Sums and f are formed in float32 at least,
      and rounded once; in bfloat16 and float16 packed documents give bitwise the results of separate ones. Gradients
      flow to x, weight and state, through both results.
    Raises: ConfigError on shapes, offsets or an unknown activation.
    Cost: O(T D W) time.
    """
    sizes: dict[str, int] = {}
    check_shape("x", x, "B T D", sizes)
    check_shape("weight", weight, "D W", sizes)
    _check_activation(activation)
    if sizes["T"] == 0:
        raise ConfigError("x has T = 0 tokens; expected at least 1.")
    offsets = document_offsets(cu_seqlens, sizes["B"], sizes["T"])
    sizes["N"] = sizes["B"] if offsets is None else len(offsets) - 1
    if state is not None:
        _check_state(state, weight, sizes)
    y = convolve(x, weight, state, offsets)
    if activation == "silu":
        y = torch.nn.functional.silu(y)
    return y.to(x.dtype), last_inputs(x, weight.shape[1] - 1, state, offsets)


def short_conv_step(
    x: torch.Tensor, weight: torch.Tensor, *, state: torch.Tensor, activation: str | None = "silu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advance `short_conv` by one token, for decoding: x `[B, D]`, state `[B, D, W - 1]`.

    Returns: y `[B, D]` and the new state (a new tensor). Raises: ConfigError as `short_conv`.
    """
    sizes: dict[str, int] = {}
    check_shape("x", x, "N D", sizes)
    check_shape("weight", weight, "D W", sizes)
    _check_activation(activation)
    _check_state(state, weight, sizes)
    window = torch.cat((state.to(x.dtype), x[:, :, None]), dim=2)
    y = (wide(window) * wide(weight)).sum(-1)
    y = torch.nn.functional.silu(y) if activation == "silu" else y
    return y.to(x.dtype), window[:, :, 1:]


def _check_activation(activation: str | None) -> None:
    if activation not in ("silu", None):
        raise ConfigError(f"activation is {activation!r}; expected 'silu' or None.")


def _check_state(state: torch.Tensor, weight: torch.Tensor, sizes: dict[str, int]) -> None:
    check_shape("state", state, "N D P", {**sizes, "P": weight.shape[1] - 1})
