"""Ring: keys and values pass from rank to rank, and every rank merges what its queries see (online softmax).

RingAttention (arXiv 2310.01889) and LWM (arXiv 2402.08268): a block is under way while the one before it is used, and
no rank holds more than two. As attention is causal, a block only moves to later ranks, and only as far as its document
reaches; in the backward pass the sum of its gradients follows it and goes home from the last.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from longlode.parallel.attention.base import AttentionSizes
from longlode.parallel.attention.blocks import block_backward, block_forward, merge
from longlode.parallel.attention.online import OnlineAttention
from longlode.parallel.attention.pieces import (
    Blocks,
    circulate,
    circulate_back,
    local_backward,
    local_forward,
)
from longlode.parallel.plan import SequencePlan

if TYPE_CHECKING:
    from longlode.parallel.shard import RankShard


class RingAttention(OnlineAttention):
    """The scheme described at the top of this file."""

    name = "ring"

    def forward_pass(self, shard: "RankShard", q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """See `OnlineAttention.forward_pass`."""
        blocks = Blocks(shard.plan)
        o, lse = local_forward(shard, q, k, v)
        seen = slice(0, blocks.num_queries(shard.rank))

        def visit(source: int, kv: Tensor) -> None:
            more = block_forward(q[:, seen], kv[0], kv[1], blocks.visible(source, q.device))
            o[:, seen], lse[:, seen] = merge(o[:, seen], lse[:, seen], *more)

        own = torch.stack((blocks.keys(shard.rank, k), blocks.keys(shard.rank, v)))
        circulate(shard, own, lambda rank: blocks.key_shape(rank, k), visit, self.name)
        return o, lse

    def backward_pass(
        self, shard: "RankShard", q: Tensor, k: Tensor, v: Tensor, lse: Tensor, grad: Tensor, row_sum: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `OnlineAttention.backward_pass`."""
        blocks = Blocks(shard.plan)
        dq, dk, dv = local_backward(shard, q, k, v, lse, grad, row_sum)
        seen = slice(0, blocks.num_queries(shard.rank))

        def visit(source: int, kv: Tensor) -> Tensor:
            rows = (x[:, seen] for x in (lse, grad, row_sum))
            more, *dkv = block_backward(q[:, seen], kv[0], kv[1], blocks.visible(source, q.device), *rows)
            dq[:, seen] += more
            return torch.stack(dkv)

        own = torch.stack((blocks.keys(shard.rank, k), blocks.keys(shard.rank, v)))
        back = circulate_back(
            shard, own, lambda rank: blocks.key_shape(rank, k), visit, f"{self.name} backward"
        )
        if back is not None:
            blocks.keys(shard.rank, dk).add_(back[0])
            blocks.keys(shard.rank, dv).add_(back[1])
        return dq, dk, dv

    def received(self, plan: SequencePlan, rank: int, sizes: AttentionSizes) -> tuple[int, int]:
        """See `OnlineAttention.received`: every block that passes; backward again, with sums of float32 or wider."""
        return passing_bytes(plan, rank, sizes, 2)


def passing_bytes(plan: SequencePlan, rank: int, sizes: AttentionSizes, parts: int) -> tuple[int, int]:
    """Bytes of blocks that pass a rank, and with the sums that follow them; parts: 2 for key and value, 1 for one."""
    blocks = Blocks(plan)
    token = parts * sizes.kv_bytes // 2 * plan.num_rows
    wide = token // sizes.itemsize * max(sizes.itemsize, 4)
    passing = [source for source in range(rank) if rank <= blocks.last_reader(source)]
    forward = sum(blocks.num_keys(source) for source in passing) * token
    followed = sum(blocks.num_keys(source) for source in passing if source < rank - 1)
    home = blocks.num_keys(rank) if blocks.last_reader(rank) > rank else 0
    return forward, forward + (followed + home) * wide
