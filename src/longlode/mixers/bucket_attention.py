"""Attention inside buckets: every query sees the last keys in its bucket, at any distance.

Content (a nearest centroid, a hash) selects the bucket; buckets have a fixed capacity, so memory is constant and later
tokens do not change the keys that a query saw.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from longlode.mixers.norm import at_least_float32

# Added to a token's score with itself if queries are keys: it sees itself only if it sees no other (arXiv 2001.04451).
_SELF = -5e4


class Buckets(NamedTuple):
    """The newest keys and values of each bucket `[N, H, buckets, kept, K]`, newest last, and their number."""

    k: Tensor
    v: Tensor
    size: Tensor

    @classmethod
    def empty(cls, k: Tensor, num_buckets: int, kept: int) -> "Buckets":
        """Make empty buckets for keys like k `[N, T, H, K]`, of capacity `kept` each."""
        N, _, H, K = k.shape
        room = k.new_zeros(N, H, num_buckets, kept, K)
        return cls(room, room, torch.zeros(N, H, num_buckets, dtype=torch.int64, device=k.device))


def bucket_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_bucket: Tensor,
    k_bucket: Tensor,
    real: Tensor,
    before: Buckets,
    *,
    shared: bool = False,
) -> tuple[Tensor, Buckets]:
    """Compute o_t = sum_j softmax_j(q_t . k_j / sqrt(K)) v_j over the last w keys in the bucket of q_t, up to t itself.

    Args: q, k, v `[N, T, H, K]`; q_bucket, k_bucket int64 `[N, T, H]`; real bool `[N, T]`, False at padding, which
      is last; before: the buckets of earlier pieces, of capacity w. shared: queries are keys, so that a token's own key
      is always in its bucket; capacity w - 1 suffices, and a token sees itself only if it sees no other.
    Returns: o `[N, T, H, K]`, 0 where a bucket is empty, and the buckets after the piece. Cost: O(T w K) time.
    """
    N, T, H, K = q.shape
    num_buckets, kept = before.k.shape[2:4]
    # All keys of a row and head in one list, the kept ones first; empty entries go to a separate bucket.
    age = torch.arange(kept, 0, -1, device=q.device)
    held = torch.arange(num_buckets, device=q.device)[:, None].expand(num_buckets, kept)
    held = torch.where(age <= before.size[..., None], held, num_buckets).flatten(2)
    new = torch.where(real[..., None], k_bucket, num_buckets).transpose(1, 2)
    bucket, order = torch.cat((held, new), -1).sort(dim=-1, stable=True)
    heads = [
        torch.cat((old.flatten(2, 3), u.transpose(1, 2)), 2) for old, u in ((before.k, k), (before.v, v))
    ]
    keys, values = (u.gather(2, order[..., None].expand_as(u)) for u in heads)
    # A key's bucket, then its age, as one sortable number; searching it finds a query's newest key in the sorted list.
    J = bucket.shape[-1]
    rank = bucket * J + order
    time = torch.arange(J - T, J, device=q.device)
    asked = q_bucket.transpose(1, 2)
    last = torch.searchsorted(rank, asked.contiguous() * J + time, right=True)
    width = kept + shared
    index = last[..., None] - torch.arange(width, 0, -1, device=q.device)
    inside = index.clamp(min=0)
    seen = (index >= 0) & (bucket.gather(2, inside.flatten(2)).view_as(index) == asked[..., None])
    near_k, near_v = (
        u.gather(2, inside.flatten(2)[..., None].expand(N, H, inside[0, 0].numel(), K)).view(
            N, H, T, width, K
        )
        for u in (keys, values)
    )
    logits = (near_k @ q.transpose(1, 2)[..., None])[..., 0] * K**-0.5
    logits = at_least_float32(logits)
    if shared:
        itself = order.gather(2, inside.flatten(2)).view_as(index) == time[:, None]
        logits = logits + itself * _SELF
    logits = logits.masked_fill(~seen, torch.finfo(logits.dtype).min)
    weights = (logits.softmax(-1) * seen.any(-1, keepdim=True)).to(q.dtype)
    o = (weights[..., None, :] @ near_v)[..., 0, :]
    return o.transpose(1, 2), _after(bucket, keys, values, before)


def _after(bucket: Tensor, keys: Tensor, values: Tensor, before: Buckets) -> Buckets:
    """Select the newest keys and values of each bucket, from lists sorted by bucket and age."""
    N, H, num_buckets, kept, K = before.k.shape
    names = torch.arange(num_buckets + 1, device=bucket.device).expand(N, H, -1)
    edges = torch.searchsorted(bucket, names.contiguous())
    first, last = edges[..., :-1, None], edges[..., 1:, None]
    index = last - torch.arange(kept, 0, -1, device=bucket.device)
    inside = index.clamp(min=0).flatten(2)[..., None].expand(N, H, num_buckets * kept, K)
    k, v = (
        u.gather(2, inside).view_as(before.k).masked_fill((index < first)[..., None], 0)
        for u in (keys, values)
    )
    return Buckets(k, v, (last - first)[..., 0].clamp(max=kept))
