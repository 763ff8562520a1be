"""Blocks of attention between ranks: which queries of a rank see which keys of a rank before it, by the plan.

Between two ranks everything is visible: the queries of the one document (or of every row) that reaches into the later
piece, and the keys of the same document in the earlier one. Only a rank's own keys need a causal mask.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from longlode.parallel.attention.blocks import Visible, block_backward, block_forward, document_spans
from longlode.parallel.plan import SequencePlan

if TYPE_CHECKING:
    from longlode.parallel.shard import RankShard


class Blocks:
    """The blocks of a plan, for the schemes that pass them from rank to rank."""

    def __init__(self, plan: SequencePlan) -> None:
        """Read the plan."""
        self.plan, self.num_ranks = plan, plan.num_ranks

    def num_queries(self, rank: int) -> int:
        """Positions at the beginning of a piece whose queries see ranks before it (of a batch all, with padding)."""
        piece = self.plan.piece(rank)
        if not piece.receives or not any(piece.lengths):
            return 0
        return piece.num_tokens if piece.documents is None else piece.documents[1]

    def num_keys(self, rank: int) -> int:
        """Positions at the end of a piece whose keys later ranks may see (of a batch all, with padding)."""
        if self.plan.documents is not None:
            return self.plan.tails[rank][0]
        piece = self.plan.piece(rank)
        return piece.num_tokens if any(piece.lengths) else 0

    def sees(self, rank: int, source: int) -> bool:
        """True if queries of `rank` see keys of `source`, a rank before it."""
        reaches = self.plan.first_ranks[rank] <= source < rank
        return reaches and self.num_queries(rank) > 0 and self.num_keys(source) > 0

    def last_reader(self, source: int) -> int:
        """The last rank that sees keys of `source`; itself if none does."""
        return max((r for r in range(source + 1, self.num_ranks) if self.sees(r, source)), default=source)

    def visible(self, source: int, device: torch.device) -> Visible:
        """Keys of `source` that queries of later ranks see."""
        lengths = self.plan.lengths(source)
        if self.plan.documents is not None or set(lengths) == {self.num_keys(source)}:
            return Visible()
        return Visible(counts=torch.tensor(lengths, device=device))

    def queries(self, rank: int, x: Tensor) -> Tensor:
        """The part of x `[B, T', ...]` of a rank that belongs to its `num_queries`."""
        return x[:, : self.num_queries(rank)]

    def keys(self, rank: int, x: Tensor) -> Tensor:
        """The part of x `[B, T', ...]` of a rank that belongs to its `num_keys`."""
        n = self.num_keys(rank)
        return x[:, :n] if self.plan.documents is None else x[:, x.shape[1] - n :]

    def key_shape(self, source: int, like: Tensor) -> tuple[int, ...]:
        """Shape of a key and value block of `source`, stacked, for k `[B, T', G, K]`."""
        return (2, like.shape[0], self.num_keys(source), *like.shape[2:])


def local_forward(shard: "RankShard", q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attend to the piece's own keys: o and lse, see `blocks.py`."""
    parts = [
        block_forward(q[:, span], k[:, span], v[:, span], Visible(causal=True))
        for span in document_spans(shard.piece.documents, q.shape[1])
    ]
    return torch.cat([o for o, _ in parts], 1), torch.cat([lse for _, lse in parts], 1)


def local_backward(
    shard: "RankShard", q: Tensor, k: Tensor, v: Tensor, lse: Tensor, grad: Tensor, row_sum: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients from the piece's own keys."""
    parts = []
    for span in document_spans(shard.piece.documents, q.shape[1]):
        own_q, own_k, own_v, *rows = (x[:, span] for x in (q, k, v, lse, grad, row_sum))
        parts.append(block_backward(own_q, own_k, own_v, Visible(causal=True), *rows))
    dq, dk, dv = (torch.cat(one, 1) for one in zip(*parts, strict=True))
    return dq, dk, dv


Shape = Callable[[int], tuple[int, ...]]


def circulate(
    shard: "RankShard", own: Tensor, shape: Shape, visit: Callable[[int, Tensor], None], kind: str
) -> None:
    """Pass every rank's block on from rank to rank, to the last that sees it, and visit those seen here.

    Args: own: the block of this rank. shape: of the block of a rank. visit: called with (source, block), nearest first.
    """
    blocks = Blocks(shard.plan)
    for source, block in _passed_on(shard, blocks, own, shape, kind):
        if blocks.sees(shard.rank, source):
            visit(source, block)


def circulate_back(
    shard: "RankShard", own: Tensor, shape: Shape, visit: Callable[[int, Tensor], Tensor], kind: str
) -> Tensor | None:
    """Pass blocks on as `circulate`, each followed by the sum of its gradients, which its last reader sends home.

    Args: visit: returns this rank's part of the gradient of a block, float32 or wider.
    Returns: the gradient of this rank's own block from all later ranks; None if no rank sees it.
    """
    blocks, rank = Blocks(shard.plan), shard.rank
    like = own.new_empty(0, dtype=torch.promote_types(own.dtype, torch.float32))
    home, last = None, blocks.last_reader(rank)
    total: Tensor | None = None
    for source, block in _passed_on(shard, blocks, own, shape, kind):
        sends, shapes = {}, {}
        if source >= 0 and rank <= blocks.last_reader(source):
            total = like.new_zeros(shape(source)) if total is None else total
            if blocks.sees(rank, source):
                total = total + visit(source, block)
            sends[rank + 1 if rank < blocks.last_reader(source) else source] = total
        if source >= 1 and rank <= blocks.last_reader(source - 1):
            # The rank before has just added its part to the sum of the block that comes next.
            shapes[rank - 1] = shape(source - 1)
        if rank < last == rank + (rank - source):
            shapes[last] = shape(rank)
        received = shard.transport.exchange(sends, shapes, like, f"{kind} gradients")
        total, home = received.get(rank - 1), received.get(last, home) if last > rank else None
    return home


def _passed_on(
    shard: "RankShard", blocks: Blocks, own: Tensor, shape: Shape, kind: str
) -> Iterator[tuple[int, Tensor]]:
    """Yield the blocks of rank - 1, rank - 2, ... (also below 0, where there is none) while the next is under way."""
    rank, held = shard.rank, own
    for source in range(rank, rank - shard.num_ranks, -1):
        sends = {rank + 1: held} if source >= 0 and rank < blocks.last_reader(source) else {}
        comes = source >= 1 and rank <= blocks.last_reader(source - 1)
        wait = shard.transport.begin(sends, {rank - 1: shape(source - 1)} if comes else {}, own, kind)
        if source < rank:
            yield source, held
        held = wait().get(rank - 1, held)
