"""delta_rule: the recurrence of DeltaNet (`g=None`) and Gated DeltaNet (`g` given).

May import: core, torch and the shared modules of ops (`chunking`, `backends`, `packed`). Start reading: `reference.py`
(the recurrence), `README.md` (the chunk form, derived), `chunkwise.py` (the chunk form, in the README's symbols);
`native.py` and `native/` for compiled CPU kernels; `triton.py` and `TRITON.md` for the GPU.
"""

import torch

from longlode.core.errors import ConfigError
from longlode.core.shapes import check_shape
from longlode.ops.delta_rule.backends import (
    BACKENDS,
    STEP_BACKENDS,
    Request,
    StepRequest,
    why_no_native_for,
    why_no_triton_for,
)
from longlode.ops.dtypes import check_dtypes
from longlode.ops.packed import Offsets, document_offsets
from longlode.ops.surroundings import resolved

__all__ = ["available_backends", "delta_rule", "delta_rule_step"]

_CHUNK_SIZES = (4, 8, 16, 32, 64, 128, 256)


def delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    *,
    g: torch.Tensor | None = None,
    scale: float | None = None,
    state: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | Offsets | None = None,
    chunk_size: int | None = None,
    backend: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Delta rule: S_t = e^{g_t} S_{t-1};  S_t += beta_t k_t (v_t - S_t^T k_t)^T;  o_t = scale * S_t^T q_t.

    Args:
      q, k: `[B, T, H, K]`, k of unit norm (or less: the state may grow otherwise); float64, 32, 16 or
        bfloat16.
      v: `[B, T, HV, V]`, dtype of q. HV is H or a multiple of it: then each head of q and k serves HV / H consecutive
        heads of v (grouped values), which have beta, g and states of their own.
      beta: `[B, T, HV]`, write strength in [0, 1]; up to 2 gives negative eigenvalues.
      g: `[B, T, HV]`, log-decay in nats per token, <= 0 (-inf clears the state); None is no decay.
      scale: factor on the output; None is K ** -0.5.
      state: `[N, HV, K, V]`, the state before the first token of each document; None is zero.
      cu_seqlens: integer `[N + 1]`, or `ops.packed.Offsets`: token offsets of N packed documents; B must be 1.
        Row n of `state` belongs to document n. Without it N = B.
      chunk_size: tokens per chunk, a power of two from 4 to 256 (triton, native: 16, 32, 64); None: chosen by backend.
      backend: "auto" (by `q.device`: on CUDA the Triton kernels, on the CPU the compiled ones, where they can run
        the call and agreed there with the chunkwise path; else chunkwise, which may also be traced and compiled;
        under transforms of torch.func and forward-mode derivatives the reference; the reason is logged), or one of
        `available_backends()`.
    Returns: o `[B, T, HV, V]` in q.dtype, and the state after the last token of each document `[N, HV, K, V]`,
      float32 (float64 for float64 inputs). Arithmetic runs in the state's dtype (triton: products of bfloat16
      inputs on bfloat16 operands). Gradients flow to every
      tensor argument, from o and from the state. Equal inputs give bitwise equal results.
    Raises: ConfigError (a ValueError) on shapes, dtypes, devices, offsets or chunk sizes that do not fit;
      BackendError on a backend that is not available or cannot run the call.
    Cost: O(T (K V + C (K + V))) time, T / C sequential steps; O(T (K + V)) memory, forward and backward.
    Source: Yang et al., arXiv 2406.06484, sections 2-3; with g: arXiv 2412.06464, eq. 10.
    """
    offsets = _check(q, k, v, beta, g, state, cu_seqlens)
    if chunk_size is not None and chunk_size not in _CHUNK_SIZES:
        raise ConfigError(f"chunk_size is {chunk_size}; expected None or one of {_CHUNK_SIZES}.")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k = (_for_each_value_head(x, v.shape[2]) for x in (q, k))
    inputs = tuple(map(resolved, (q, k, v, beta, g, state)))
    request = Request(q.device, q.dtype, q.shape[-1], v.shape[-1], g is not None, chunk_size)
    chosen = BACKENDS.pick(backend, inputs, q.device, request)
    with torch.autocast(q.device.type, enabled=False):
        o, final_state = chosen.run(*inputs[:5], scale, inputs[5], offsets, chunk_size)
    return o, final_state


def delta_rule_step(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    *,
    g: torch.Tensor | None = None,
    scale: float | None = None,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advance `delta_rule` by one token, for decoding.

    Args: q, k `[B, H, K]`, v `[B, HV, V]`, beta and g `[B, HV]`, state `[B, HV, K, V]`, as in `delta_rule`.
    Returns: o `[B, HV, V]` in q.dtype and the new state (a new tensor; the old one is left as it was).
    Cost: O(K V) per head, independent of the text length. Raises: ConfigError on shapes and dtypes, as `delta_rule`.
    """
    sizes: dict[str, int] = {}
    check_shape("q", q, "B H K", sizes)
    check_shape("k", k, "B H K", sizes)
    check_shape("v", v, "B HV V", sizes)
    check_shape("beta", beta, "B HV", sizes)
    check_shape("state", state, "B HV K V", sizes)
    if g is not None:
        check_shape("g", g, "B HV", sizes)
    _check_heads(sizes)
    check_dtypes({"q": q, "k": k, "v": v}, {"beta": beta, "g": g, "state": state})
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k = (_for_each_value_head(x, v.shape[1], dim=1) for x in (q, k))
    inputs = tuple(map(resolved, (q, k, v, beta, g, state)))
    present = [x for x in inputs if x is not None]
    request = StepRequest(
        frozenset([x.dtype for x in present]),
        state.shape[2],
        state.shape[3],
        state.numel(),
        torch.is_grad_enabled() and any(x.requires_grad for x in present),
    )
    chosen = STEP_BACKENDS.pick("auto", inputs, q.device, request)
    with torch.autocast(q.device.type, enabled=False):
        o, new_state = chosen.run(*inputs[:5], scale, inputs[5])
    return o, new_state


def available_backends(
    device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> dict[str, str]:
    """List the backends of `delta_rule`: name -> "" if it can be used here, else why not and what to do.

    With `device` or `dtype` the answer is for tensors on that device, of that dtype; None is any.
    """
    return {
        "reference": "",
        "chunkwise": "",
        "native": why_no_native_for(device, dtype),
        "triton": why_no_triton_for(device, dtype),
    }


def _check(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | Offsets | None,
) -> tuple[int, ...] | None:
    """Check every argument; return the documents' offsets."""
    sizes: dict[str, int] = {}
    check_shape("q", q, "B T H K", sizes)
    check_shape("k", k, "B T H K", sizes)
    check_shape("v", v, "B T HV V", sizes)
    check_shape("beta", beta, "B T HV", sizes)
    if g is not None:
        check_shape("g", g, "B T HV", sizes)
    for name, size in sizes.items():
        if size == 0:
            raise ConfigError(
                f"{name} is 0 (q has shape {list(q.shape)}, v {list(v.shape)}); expected at least 1."
            )
    _check_heads(sizes)
    check_dtypes({"q": q, "k": k, "v": v}, {"beta": beta, "g": g, "state": state})
    offsets = document_offsets(cu_seqlens, sizes["B"], sizes["T"])
    sizes["N"] = sizes["B"] if offsets is None else len(offsets) - 1
    if state is not None:
        check_shape("state", state, "N HV K V", sizes)
    return offsets


def _check_heads(sizes: dict[str, int]) -> None:
    if sizes["HV"] % sizes["H"]:
        raise ConfigError(
            f"v has {sizes['HV']} heads and q has {sizes['H']}; expected as many, or a multiple (each head of q and k "
            "then serves several of v)."
        )


def _for_each_value_head(x: torch.Tensor, num_value_heads: int, dim: int = 2) -> torch.Tensor:
    """Repeat each head of x for the value heads that it serves; gradients of the copies are summed."""
    repeats = num_value_heads // x.shape[dim]
    if repeats == 1:
        return x
    return x.unsqueeze(dim + 1).expand(*x.shape[: dim + 1], repeats, x.shape[-1]).flatten(dim, dim + 1)
