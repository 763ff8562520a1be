"""Balanced ring: ranks that causality leaves idle attend for later ranks (LightSeq / DistFlashAttn, arXiv 2310.03294).

Of P pieces, rank r sees r before its own, so in a plain ring the last works while the first waits. Here a pair of
pieces (queries of r, keys of j) at most P / 2 apart is computed by r, which gets the keys; one that is further apart by
j, which gets the queries and returns their outputs and log-sums. All ranks then compute as many pairs, up to one.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from longlode.parallel.attention.base import AttentionSizes
from longlode.parallel.attention.blocks import block_backward, block_forward, merge
from longlode.parallel.attention.online import OnlineAttention
from longlode.parallel.attention.pieces import Blocks, local_backward, local_forward
from longlode.parallel.plan import SequencePlan

if TYPE_CHECKING:
    from longlode.parallel.shard import RankShard


class RingBalancedAttention(OnlineAttention):
    """The scheme described at the top of this file."""

    name = "ring_balanced"

    def forward_pass(self, shard: "RankShard", q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """See `OnlineAttention.forward_pass`."""
        steps = _Steps(shard, q, k, v)
        blocks, rank, kind = steps.blocks, shard.rank, self.name
        first = steps.begin(1, kind)
        o, lse = local_forward(shard, q, k, v)
        own_k, own_v = steps.kv
        seen = slice(0, blocks.num_queries(rank))
        for step in range(1, steps.count + 1):
            received = first()
            # The next step's tensors are under way while this one is computed.
            first = steps.begin(step + 1, kind)
            helped: dict[int, Tensor] = {}
            source, asker = steps.source(step), steps.asker(step)
            if asker is not None:
                part, sums = block_forward(received[asker][0], own_k, own_v, blocks.visible(rank, q.device))
                helped[asker] = torch.cat((part, sums[..., None]), -1)
            if source is not None:
                keys, values = received[source]
                more = block_forward(q[:, seen], keys, values, blocks.visible(source, q.device))
                o[:, seen], lse[:, seen] = merge(o[:, seen], lse[:, seen], *more)
            for one in steps.returned(step, helped, o, f"{kind} results"):
                o[:, seen], lse[:, seen] = merge(o[:, seen], lse[:, seen], one[..., :-1], one[..., -1])
        return o, lse

    def backward_pass(
        self, shard: "RankShard", q: Tensor, k: Tensor, v: Tensor, lse: Tensor, grad: Tensor, row_sum: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `OnlineAttention.backward_pass`."""
        steps, kind = _Steps(shard, q, k, v), f"{self.name} backward"
        blocks, rank = steps.blocks, shard.rank
        first = steps.begin(1, kind)
        dq, dk, dv = local_backward(shard, q, k, v, lse, grad, row_sum)
        seen = slice(0, blocks.num_queries(rank))
        rows = torch.cat((grad, lse[..., None], row_sum[..., None]), -1)[:, seen]
        own_k, own_v, own_dk, own_dv = (blocks.keys(rank, x) for x in (k, v, dk, dv))
        for step in range(1, steps.count + 1):
            received, asked = first(), steps.rows(step, rows, f"{kind} rows")
            first = steps.begin(step + 1, kind)
            to_asker, to_source = {}, {}
            source, asker = steps.source(step), steps.asker(step)
            if asker is not None:
                one = asked[asker]
                facts = one[..., -2], one[..., :-2], one[..., -1]
                to_asker[asker], more_k, more_v = block_backward(
                    received[asker][0], own_k, own_v, blocks.visible(rank, q.device), *facts
                )
                own_dk += more_k
                own_dv += more_v
            if source is not None:
                facts = rows[..., -2], rows[..., :-2], rows[..., -1]
                keys, values = received[source]
                more, *dkv = block_backward(
                    q[:, seen], keys, values, blocks.visible(source, q.device), *facts
                )
                dq[:, seen] += more
                to_source[source] = torch.stack(dkv)
            for one in steps.returned(step, to_asker, dq, f"{kind} results", extra=0):
                dq[:, seen] += one
            for one in steps.key_gradients(step, to_source, dk, f"{kind} gradients"):
                own_dk += one[0]
                own_dv += one[1]
        return dq, dk, dv

    def received(self, plan: SequencePlan, rank: int, sizes: AttentionSizes) -> tuple[int, int]:
        """See `OnlineAttention.received`: keys, queries to help with, and what comes back for the own queries."""
        blocks, rows, wide = Blocks(plan), plan.num_rows, max(sizes.itemsize, 4)
        forward = backward = 0
        for step in range(1, plan.num_ranks // 2 + 1):
            source, asker, helper, reader = _partners(blocks, rank, step)
            numbers = sizes.num_heads * sizes.head_dim
            if source is not None:
                forward += rows * blocks.num_keys(source) * sizes.kv_bytes
                backward += rows * blocks.num_keys(source) * sizes.kv_bytes
            if asker is not None:
                forward += rows * blocks.num_queries(asker) * sizes.q_bytes
                backward += (
                    rows
                    * blocks.num_queries(asker)
                    * (sizes.q_bytes + wide * (numbers + 2 * sizes.num_heads))
                )
            if helper is not None:
                forward += rows * blocks.num_queries(rank) * wide * (numbers + sizes.num_heads)
                backward += rows * blocks.num_queries(rank) * wide * numbers
            if reader is not None:
                backward += rows * blocks.num_keys(rank) * sizes.kv_bytes // sizes.itemsize * wide
        return forward, backward


def pairs_computed(plan: SequencePlan, rank: int) -> int:
    """Count the pairs of pieces that a rank computes beside its own piece."""
    blocks = Blocks(plan)
    steps = range(1, plan.num_ranks // 2 + 1)
    return sum(one is not None for step in steps for one in _partners(blocks, rank, step)[:2])


def _partners(blocks: Blocks, rank: int, step: int) -> tuple[int | None, int | None, int | None, int | None]:
    """Partners of a rank in a step, None for none.

    source: the rank whose keys this one attends to; asker: the rank whose queries it attends for; helper: the rank that
    attends for this one; reader: the rank that attends to this one's keys.
    """
    num_ranks = blocks.num_ranks
    far = num_ranks - step
    source = rank - step if blocks.sees(rank, rank - step) else None
    reader = rank + step if rank + step < num_ranks and blocks.sees(rank + step, rank) else None
    asker = helper = None
    if 2 * step < num_ranks:
        asker = rank + far if rank + far < num_ranks and blocks.sees(rank + far, rank) else None
        helper = rank - far if blocks.sees(rank, rank - far) else None
    return source, asker, helper, reader


class _Steps:
    """The exchanges of a rank, step by step."""

    def __init__(self, shard: "RankShard", q: Tensor, k: Tensor, v: Tensor) -> None:
        self.transport, self.blocks, self.rank = shard.transport, Blocks(shard.plan), shard.rank
        self.count = shard.num_ranks // 2
        self.q, self.k = q, k
        self.kv = torch.stack((self.blocks.keys(self.rank, k), self.blocks.keys(self.rank, v)))
        self.seen = self.blocks.queries(self.rank, q)

    def source(self, step: int) -> int | None:
        return _partners(self.blocks, self.rank, step)[0]

    def asker(self, step: int) -> int | None:
        return _partners(self.blocks, self.rank, step)[1]

    def begin(self, step: int, kind: str) -> Callable[[], dict[int, Tensor]]:
        """Send keys to the rank that reads them and queries to the rank that helps, and receive the like."""
        if step > self.count:
            return dict
        source, asker, helper, reader = _partners(self.blocks, self.rank, step)
        sends, shapes = {}, {}
        if reader is not None:
            sends[reader] = self.kv
        if helper is not None:
            sends[helper] = self.seen[None]
        if source is not None:
            shapes[source] = self.blocks.key_shape(source, self.k)
        if asker is not None:
            shapes[asker] = (1, *self._query_shape(asker))
        return self.transport.begin(sends, shapes, self.q, kind)

    def rows(self, step: int, own: Tensor, kind: str) -> dict[int, Tensor]:
        """Send the rows of gradients and sums to the rank that helps, and receive those of the rank that asks."""
        _, asker, helper, _ = _partners(self.blocks, self.rank, step)
        shapes = {} if asker is None else {asker: (*self._query_shape(asker)[:-1], own.shape[-1])}
        return self.transport.exchange({} if helper is None else {helper: own}, shapes, own, kind)

    def returned(
        self, step: int, helped: dict[int, Tensor], like: Tensor, kind: str, extra: int = 1
    ) -> list[Tensor]:
        """Return what was computed for the rank that asks, and receive it from the one that helps.

        extra: numbers of each row beside those of a head.
        """
        helper = _partners(self.blocks, self.rank, step)[2]
        B, T, H, K = self._query_shape(self.rank)
        shapes = {} if helper is None else {helper: (B, T, H, K + extra)}
        return list(self.transport.exchange(helped, shapes, like, kind).values())

    def key_gradients(self, step: int, own: dict[int, Tensor], like: Tensor, kind: str) -> list[Tensor]:
        """Return the gradients of received keys and values, and receive those of this rank's."""
        reader = _partners(self.blocks, self.rank, step)[3]
        shapes = {} if reader is None else {reader: self.blocks.key_shape(self.rank, self.k)}
        return list(self.transport.exchange(own, shapes, like, kind).values())

    def _query_shape(self, rank: int) -> tuple[int, int, int, int]:
        B, _, H, K = self.q.shape
        return B, self.blocks.num_queries(rank), H, K
