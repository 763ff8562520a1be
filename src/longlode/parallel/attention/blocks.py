"""Softmax attention in blocks of queries by keys, with the log-sum of each row, so that blocks of a row can be merged.

    s = scale q k^T;   lse = log sum exp(s);   o = exp(s - lse) v
    two blocks of keys:   lse = log(exp(lse_1) + exp(lse_2));   o = exp(lse_1 - lse) o_1 + exp(lse_2 - lse) o_2
    backward, with D = sum(do * o) per row:   p = exp(s - lse);   dv = p^T do;   ds = p (do v^T - D);   dq = scale ds k

Arithmetic and results are float32 or wider. Queries are taken `BLOCK` at a time, which bounds the scores in memory.
Shapes: q, o `[B, T, H, K]`; k, v `[B, J, G, K]`, each key head for H / G query heads; lse `[B, T, H]`.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from longlode.mixers.norm import at_least_float32

BLOCK = 256
"""Queries of one block."""


class Visible(NamedTuple):
    """Keys of a block that its queries see.

    causal: query t sees keys 0 to t; otherwise all. counts: real keys of each row, int64 `[B]`; None: all.
    """

    causal: bool = False
    counts: Tensor | None = None


def block_forward(q: Tensor, k: Tensor, v: Tensor, visible: Visible) -> tuple[Tensor, Tensor]:
    """Attend to one block of keys: o, 0 where a query sees none, and lse, there -inf."""
    outputs, sums = [], []
    v_wide = at_least_float32(v)
    for _, keys, s in _scores(q, k, visible):
        lse = s.logsumexp(-1)
        p = (s - lse.masked_fill(lse == -torch.inf, 0)[..., None]).exp()
        o = torch.einsum("bgrts,bsgk->btgrk", p, v_wide[:, keys])
        outputs.append(o.flatten(2, 3))
        sums.append(lse.permute(0, 3, 1, 2).flatten(2))
    return torch.cat(outputs, 1), torch.cat(sums, 1)


def block_backward(
    q: Tensor, k: Tensor, v: Tensor, visible: Visible, lse: Tensor, grad: Tensor, row_sum: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from one block of keys.

    lse `[B, T, H]`: of the whole rows. grad: of the whole output. row_sum `[B, T, H]`: D at the top of this file.
    """
    groups = k.shape[2]
    scale = q.shape[-1] ** -0.5
    q_wide, k_wide, v_wide, grad = (at_least_float32(x) for x in (q, k, v, grad))
    dq, dk, dv = (torch.zeros_like(x) for x in (q_wide, k_wide, v_wide))
    for part, keys, s in _scores(q, k, visible):
        lse_part, sum_part = (_by_group(x[:, part], groups).permute(0, 2, 3, 1) for x in (lse, row_sum))
        p = (s - lse_part.masked_fill(lse_part == -torch.inf, 0)[..., None]).exp()
        do = _by_group(grad[:, part], groups)
        dv[:, keys] += torch.einsum("bgrts,btgrk->bsgk", p, do)
        ds = p * (torch.einsum("btgrk,bsgk->bgrts", do, v_wide[:, keys]) - sum_part[..., None]) * scale
        dq[:, part] = torch.einsum("bgrts,bsgk->btgrk", ds, k_wide[:, keys]).flatten(2, 3)
        dk[:, keys] += torch.einsum("bgrts,btgrk->bsgk", ds, _by_group(q_wide[:, part], groups))
    return dq, dk, dv


def merge(o: Tensor, lse: Tensor, more_o: Tensor, more_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Merge the results of two blocks of keys for the same queries."""
    total = torch.logaddexp(lse, more_lse)
    safe = total.masked_fill(total == -torch.inf, 0)
    return (lse - safe).exp()[..., None] * o + (more_lse - safe).exp()[..., None] * more_o, total


def document_spans(documents: tuple[int, ...] | None, num_tokens: int) -> list[slice]:
    """Spans of the documents of a piece; one of all tokens without packing."""
    edges = (0, num_tokens) if documents is None else documents
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def scores(q: Tensor, k: Tensor, visible: Visible) -> Tensor:
    """All scores of a block at once, `[B, G, H / G, T, J]`, -inf where a query does not see a key."""
    q, k = at_least_float32(q) * q.shape[-1] ** -0.5, at_least_float32(k)
    s = torch.einsum("btgrk,bsgk->bgrts", _by_group(q, k.shape[2]), k)
    hidden = _hidden(slice(0, q.shape[1]), slice(0, k.shape[1]), visible, q.device)
    return s if hidden is None else s.masked_fill(hidden, -torch.inf)


def _scores(q: Tensor, k: Tensor, visible: Visible) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield spans of queries, the keys that they may see, and the scores `[B, G, H / G, queries, keys]`."""
    scale = q.shape[-1] ** -0.5
    q, k = at_least_float32(q), at_least_float32(k)
    for start in range(0, q.shape[1], BLOCK):
        part = slice(start, min(start + BLOCK, q.shape[1]))
        keys = slice(0, part.stop if visible.causal else k.shape[1])
        s = torch.einsum("btgrk,bsgk->bgrts", _by_group(q[:, part] * scale, k.shape[2]), k[:, keys])
        hidden = _hidden(part, keys, visible, q.device)
        yield part, keys, s if hidden is None else s.masked_fill(hidden, -torch.inf)


def _hidden(part: slice, keys: slice, visible: Visible, device: torch.device) -> Tensor | None:
    """Bool, True where a query does not see a key, for broadcasting to scores; None: sees all."""
    key = torch.arange(keys.start, keys.stop, device=device)
    hidden = None
    if visible.causal:
        hidden = (key > torch.arange(part.start, part.stop, device=device)[:, None])[None, None, None]
    if visible.counts is not None:
        padding = (key >= visible.counts[:, None])[:, None, None, None]
        hidden = padding if hidden is None else hidden | padding
    return hidden


def _by_group(x: Tensor, groups: int) -> Tensor:
    """Split heads (dimension 2) into key heads and the query heads of each."""
    return x.unflatten(2, (groups, -1))
