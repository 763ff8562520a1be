"""Ulysses: every rank attends over the whole sequence, for its share of the heads (arXiv 2309.14509).

Queries, keys and values go from pieces of the sequence to heads by one all-to-all each, outputs go back by another. The
bytes of a rank do not grow if length and ranks grow together; the ranks must divide the query heads, and key
heads are repeated where the ranks do not divide them.
"""

from typing import TYPE_CHECKING

from torch import Tensor

from longlode.ops.attention import attention
from longlode.parallel.attention.base import AttentionScheme, AttentionSizes
from longlode.parallel.heads import over_heads, shared_heads
from longlode.parallel.plan import SequencePlan

if TYPE_CHECKING:
    from longlode.parallel.shard import RankShard


class UlyssesAttention(AttentionScheme):
    """The scheme described at the top of this file."""

    name = "ulysses"

    def __call__(self, shard: "RankShard", q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """See `AttentionScheme.__call__`."""
        mask, offsets = shard.whole.mask(q.device), shard.whole.offsets

        def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attention(q, k, v, window=window, key_mask=mask, cu_seqlens=offsets)

        return over_heads(shard, run, (q, k, v), q.shape[2])

    def received_bytes(
        self, plan: SequencePlan, rank: int, sizes: AttentionSizes, window: int | None
    ) -> tuple[int, int]:
        """See `AttentionScheme.received_bytes`: q, k, v of the others' tokens, o of the own; backward the mirror."""
        ranks, own = plan.num_ranks, sum(plan.lengths(rank))
        others = sum(sum(plan.lengths(r)) for r in range(ranks) if r != rank)
        token = sizes.head_dim * sizes.itemsize // ranks
        inputs = sizes.num_heads + 2 * shared_heads(sizes.num_heads, sizes.num_key_heads, ranks)
        forward = others * inputs * token + own * (ranks - 1) * sizes.num_heads * token
        backward = others * sizes.num_heads * token + own * (ranks - 1) * inputs * token
        return forward, backward
