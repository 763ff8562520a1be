"""attention: causal softmax attention, full or in a sliding window, as a function of tensors.

May import: core and torch. Start reading: `attention` below, then `blocks.py` (computation in blocks).
"""

import torch

from longlode.core.errors import ConfigError
from longlode.core.shapes import check_shape
from longlode.ops.attention.blocks import attend
from longlode.ops.packed import Offsets, document_offsets

__all__ = ["attention"]


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    window: int | None = None,
    q_offset: int = 0,
    key_mask: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | Offsets | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """Causal attention: o_t = sum_j softmax_j(scale q_t . k_j) v_j over the keys j that token t may see.

    Query t has position q_offset + t, key j position j. It may see j <= its position, j > its
    position - window, j where `key_mask` is true, and j in its own document.

    Args:
      q: `[B, T, H, K]`.
      k, v: `[B, J, G, K]` and `[B, J, G, V]`, G key heads, each shared by H / G consecutive query heads.
      window: number of positions that a query sees, itself included; None is all.
      q_offset: position of the first query among the keys (the length of a cache before it).
      key_mask: bool `[B, J]`, false on padding; None is all true.
      cu_seqlens: integer `[N + 1]`, or `ops.packed.Offsets`: token offsets of documents packed in q; then B = 1. The
        `q_offset` keys before them belong to the first document.
      scale: None is K ** -0.5.
    Returns: o `[B, T, H, V]`. A query without a visible key gives zeros.
    Raises: ConfigError on shapes, offsets, or a window below 1.
    Gradients are those of PyTorch's kernels: a second derivative, or one in forward mode, needs its MATH kernel
    (`torch.nn.attention.sdpa_kernel`), and raises in the others.
    Cost: O(T J) time, or O(T window) with a window; never a mask of more than a block of queries by its keys
      where a window or documents bound it.
    """
    sizes: dict[str, int] = {}
    check_shape("q", q, "B T H K", sizes)
    check_shape("k", k, "B J G K", sizes)
    check_shape("v", v, "B J G V", sizes)
    if sizes["H"] % sizes["G"]:
        raise ConfigError(f"q has {sizes['H']} heads and k has {sizes['G']}; expected a multiple.")
    if window is not None and window < 1:
        raise ConfigError(f"window is {window}; expected None or at least 1.")
    if q_offset < 0 or q_offset + sizes["T"] > sizes["J"]:
        raise ConfigError(
            f"queries stand at positions {q_offset} to {q_offset + sizes['T'] - 1} with {sizes['J']} keys; "
            "expected 0 <= q_offset and q_offset + T <= J. Append the new keys to the cache before the call."
        )
    if key_mask is not None:
        check_shape("key_mask", key_mask, "B J", sizes)
        if key_mask.dtype != torch.bool:
            raise ConfigError(f"key_mask is {key_mask.dtype}; expected torch.bool.")
    offsets = document_offsets(cu_seqlens, sizes["B"], sizes["T"])
    return attend(
        q, k, v, window, q_offset, key_mask, offsets, sizes["K"] ** -0.5 if scale is None else scale
    )
