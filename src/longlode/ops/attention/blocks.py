"""Causal attention as a few calls of PyTorch's fused kernel: whole, or block by block."""

import itertools

import torch
import torch.nn.functional as F

from longlode.ops.slices import Slices

# Queries per block: with a window of w a block reads at most w + _BLOCK - 1 keys, so the extra work is below
# _BLOCK / w.
_BLOCK = 256


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    window: int | None,
    q_offset: int,
    key_mask: torch.Tensor | None,
    offsets: tuple[int, ...] | None,
    scale: float,
) -> torch.Tensor:
    """Compute attention on checked arguments; these and the result are as in `longlode.ops.attention.attention`."""
    if offsets is not None:
        parts = []
        parts_of_q, parts_of_k, parts_of_v = Slices(q), Slices(k), Slices(v)
        for start, end in itertools.pairwise(offsets):
            # The first document has the keys of the cache before its own; others begin at their own first key.
            before = q_offset if start == 0 else 0
            keys = (q_offset - before + start, q_offset + end)
            own = (parts_of_q.take(start, end), parts_of_k.take(*keys), parts_of_v.take(*keys))
            mask = None if key_mask is None else key_mask[:, slice(*keys)]
            parts.append(attend(*own, window, before, mask, None, scale))
        return torch.cat(parts, dim=1)
    T, J = q.shape[1], q_offset + q.shape[1]
    if window is not None and window >= J:
        window = None
    if window is None and key_mask is None and q_offset == 0:
        return _kernel(q, k[:, :J], v[:, :J], scale, is_causal=True)
    if window is None and key_mask is None and T == 1:
        return _kernel(q, k[:, :J], v[:, :J], scale)
    outputs: list[torch.Tensor] = []
    parts_of_q, parts_of_k, parts_of_v = Slices(q), Slices(k), Slices(v)
    mask, shape = torch.empty(0), (0, 0)
    for start in range(0, T, _BLOCK):
        end = min(start + _BLOCK, T)
        first = 0 if window is None else max(0, q_offset + start - window + 1)
        last = q_offset + end
        if shape != (end - start, last - first):
            # Blocks of a window that have the same shape have the same mask: it depends on distances alone.
            shape = (end - start, last - first)
            mask = _visible(q_offset + start, last, first, window, q.device)
        seen = mask if key_mask is None else mask & key_mask[:, None, None, first:last]
        own = (parts_of_q.take(start, end), parts_of_k.take(first, last), parts_of_v.take(first, last))
        outputs.append(_kernel(*own, scale, seen, may_see_none=key_mask is not None))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def _visible(start: int, end: int, first: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Make the mask of keys `first` to `end - 1` for queries `start` to `end - 1`: bool `[1, 1, queries, keys]`."""
    position = torch.arange(start, end, device=device)[:, None]
    key = torch.arange(first, end, device=device)
    seen = key <= position
    return (seen if window is None else seen & (key > position - window))[None, None]


def _kernel(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
    is_causal: bool = False,
    may_see_none: bool = False,
) -> torch.Tensor:
    o = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    if mask is not None and may_see_none:
        # A softmax over no key is undefined and kernels differ, so a query without a visible key gives zeros here.
        o = torch.where(mask.any(-1, keepdim=True), o, 0.0)
    return o.transpose(1, 2)
