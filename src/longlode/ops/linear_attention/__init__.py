"""linear_attention: the recurrence of linear attention, Mamba-2 and GLA: no decay, one per head, or one per channel.

May import: core, torch and the shared modules of ops (`chunking`, `backends`, `packed`). Start reading:
`reference.py` (the recurrence), then `chunkwise.py` (matrix products, derived at its top).
"""

import torch

from longlode.core.errors import ConfigError
from longlode.core.shapes import check_shape
from longlode.ops.backends import Backend, Backends
from longlode.ops.dtypes import check_dtypes
from longlode.ops.linear_attention.chunkwise import linear_attention_chunkwise
from longlode.ops.linear_attention.reference import advance, linear_attention_reference
from longlode.ops.packed import Offsets, document_offsets
from longlode.ops.surroundings import Interface, resolved

__all__ = ["linear_attention", "linear_attention_step"]

_CHUNK_SIZES = (4, 8, 16, 32, 64, 128, 256)
_BACKENDS: Backends[None] = Backends(
    "linear_attention",
    Backend("chunkwise", linear_attention_chunkwise, Interface.FUNCTION),
    Backend("reference", linear_attention_reference, Interface.OPERATIONS),
)


def linear_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    g: torch.Tensor | None = None,
    scale: float | None = None,
    state: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | Offsets | None = None,
    chunk_size: int | None = None,
    backend: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Linear attention: S_t = diag(e^{g_t}) S_{t-1} + k_t v_t^T;  o_t = scale * S_t^T q_t.

    Args:
      q, k: `[B, T, H, K]`; float64, 32, 16 or bfloat16.
      v: `[B, T, H, V]`, dtype of q.
      g: log-decay in nats per token, <= 0 (-inf clears): `[B, T, H]` for one per head, `[B, T, H, K]` for one per
        key channel, None for no decay.
      scale: factor on the output; None is K ** -0.5.
      state: `[N, H, K, V]`, the state before the first token of each document; None is zero.
      cu_seqlens: integer `[N + 1]`, or `ops.packed.Offsets`: token offsets of N packed documents; B must be 1.
        Row n of `state` belongs to document n. Without it N = B.
      chunk_size: tokens per chunk of the chunkwise backend, a power of two from 4 to 256; None: chosen by it.
      backend: "auto" (chunkwise, on every device; the reference under transforms of torch.func and forward-mode
        derivatives), "chunkwise" or "reference".
    Returns: o `[B, T, H, V]` in q.dtype, and the state after the last token of each document `[N, H, K, V]`,
      float32 (float64 for float64 inputs). Gradients of every order flow to every tensor argument, from o and from
      the state.
    Raises: ConfigError (a ValueError) on shapes, dtypes, devices, offsets, chunk sizes or backends; BackendError on
      a backend that cannot run the call.
    Cost: O(T (K V + C (K + V))) time, with a decay per channel O(T C K) more; T / C sequential steps.
    Source: arXiv 2006.16236 (no decay), 2405.21060 sections 6-7 (per head), 2312.06635 section 4 (per channel).
    """
    sizes: dict[str, int] = {}
    for name, tensor, dimensions in (("q", q, "B T H K"), ("k", k, "B T H K"), ("v", v, "B T H V")):
        check_shape(name, tensor, dimensions, sizes)
    if 0 in sizes.values():
        raise ConfigError(f"q has shape {list(q.shape)} and v {list(v.shape)}; expected no size of 0.")
    if g is not None:
        check_shape("g", g, "B T H K" if g.dim() == 4 else "B T H", sizes)
    check_dtypes({"q": q, "k": k, "v": v}, {"g": g, "state": state})
    offsets = document_offsets(cu_seqlens, sizes["B"], sizes["T"])
    sizes["N"] = sizes["B"] if offsets is None else len(offsets) - 1
    if state is not None:
        check_shape("state", state, "N H K V", sizes)
    if chunk_size is not None and chunk_size not in _CHUNK_SIZES:
        raise ConfigError(f"chunk_size is {chunk_size}; expected None or one of {_CHUNK_SIZES}.")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    inputs = tuple(map(resolved, (q, k, v, g, state)))
    chosen = _BACKENDS.pick(backend, inputs, q.device, None)
    with torch.autocast(q.device.type, enabled=False):
        o, final_state = chosen.run(*inputs[:4], scale, inputs[4], offsets, chunk_size)
    return o, final_state


def linear_attention_step(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    g: torch.Tensor | None = None,
    scale: float | None = None,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advance `linear_attention` by one token, for decoding.

    Args: q, k `[B, H, K]`, v `[B, H, V]`, g `[B, H]` or `[B, H, K]`, state `[B, H, K, V]`.
    Returns: o `[B, H, V]` in q.dtype and the new state (a new tensor). Raises: ConfigError on shapes, dtypes.
    Cost: O(K V) per head, independent of the text length.
    """
    sizes: dict[str, int] = {}
    named = (("q", q, "B H K"), ("k", k, "B H K"), ("v", v, "B H V"), ("state", state, "B H K V"))
    for name, tensor, letters in named:
        check_shape(name, tensor, letters, sizes)
    if g is not None:
        check_shape("g", g, "B H K" if g.dim() == 3 else "B H", sizes)
    check_dtypes({"q": q, "k": k, "v": v}, {"g": g, "state": state})
    with torch.autocast(q.device.type, enabled=False):
        o, new_state = advance(q, k, v, g, q.shape[-1] ** -0.5 if scale is None else scale, state)
    return o.to(q.dtype), new_state
