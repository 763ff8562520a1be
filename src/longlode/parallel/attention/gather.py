"""Gather: every rank receives the keys and values before its piece, then attends as one rank does.

As in LASP-2H (arXiv 2502.07563), which gathers from all ranks; here a rank receives only what its queries may see:
the tokens of the documents that reach into its piece, and with a sliding window the last `window - 1` of them. The
simplest scheme; the last rank needs memory for the keys and values of the whole document.
"""

from typing import TYPE_CHECKING

from torch import Tensor

from longlode.ops.attention import attention
from longlode.parallel.attention.base import AttentionScheme, AttentionSizes
from longlode.parallel.plan import SequencePlan

if TYPE_CHECKING:
    from longlode.parallel.shard import RankShard


class GatherAttention(AttentionScheme):
    """The scheme described at the top of this file."""

    name = "gather"

    def __call__(self, shard: "RankShard", q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """See `AttentionScheme.__call__`."""
        last = None if window is None else window - 1
        mask = shard.gathered_mask(shard.piece.mask(q.device), last)
        keys, values = shard.gather(k, v, last=last)
        return attention(
            q,
            keys,
            values,
            window=window,
            q_offset=keys.shape[1] - q.shape[1],
            key_mask=mask,
            cu_seqlens=shard.offsets,
        )

    def received_bytes(
        self, plan: SequencePlan, rank: int, sizes: AttentionSizes, window: int | None
    ) -> tuple[int, int]:
        """See `AttentionScheme.received_bytes`: keys and values once; their gradients come back once."""
        last = None if window is None else window - 1
        received = sum(sum(counts) for counts in plan.wanted(rank, last).values())
        sent = sum(sum(plan.wanted(r, last).get(rank, ())) for r in range(plan.num_ranks))
        return received * sizes.kv_bytes, sent * sizes.kv_bytes
