"""Ring of keys, then of values, with whole rows of scores between (Ring Self-Attention, arXiv 2105.13120).

Keys pass from rank to rank and fill the rows of scores of every query; their softmax is taken once; then values pass.
There is no online softmax and so no merging, but a rank holds its queries' scores of all keys, T^2 / P numbers per
head.
For comparison, and for short sequences.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from longlode.mixers.norm import at_least_float32
from longlode.parallel.attention.base import AttentionScheme, AttentionSizes
from longlode.parallel.attention.blocks import Visible, scores
from longlode.parallel.attention.gather import GatherAttention
from longlode.parallel.attention.pieces import Blocks, circulate, circulate_back
from longlode.parallel.attention.ring import passing_bytes
from longlode.parallel.plan import SequencePlan

if TYPE_CHECKING:
    from longlode.parallel.shard import RankShard


class RingScoresAttention(AttentionScheme):
    """The scheme described at the top of this file. A sliding window is gathered, once, by need."""

    name = "ring_scores"

    def __call__(self, shard: "RankShard", q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """See `AttentionScheme.__call__`."""
        if window is not None:
            return GatherAttention()(shard, q, k, v, window)
        return _RingScores.apply(q, k, v, shard)

    def received_bytes(
        self, plan: SequencePlan, rank: int, sizes: AttentionSizes, window: int | None
    ) -> tuple[int, int]:
        """See `AttentionScheme.received_bytes`: keys and values in one ring each, with their gradients in backward."""
        if window is not None:
            return GatherAttention().received_bytes(plan, rank, sizes, window)
        return passing_bytes(plan, rank, sizes, 2)


class _Rows:
    """Blocks of one rank's rows of scores, or of their gradients: by the rank of the keys, `[B, G, H / G, T, keys]`."""

    def __init__(self, shard: "RankShard", q: Tensor, k: Tensor, v: Tensor) -> None:
        self.shard, self.blocks = shard, Blocks(shard.plan)
        self.q, self.k, self.v = q, k, v
        self.seen = slice(0, self.blocks.num_queries(shard.rank))

    def shape(self, rank: int) -> tuple[int, ...]:
        return self.blocks.key_shape(rank, self.k)[1:]

    def own(self, x: Tensor) -> Tensor:
        return self.blocks.keys(self.shard.rank, x)

    def queries(self, source: int) -> slice:
        """Queries that see the keys of a rank."""
        return slice(None) if source == self.shard.rank else self.seen

    def probabilities(self) -> dict[int, Tensor]:
        """Softmax of whole rows, in blocks."""
        rank, q = self.shard.rank, self.q
        found = {rank: scores(q, self.k, Visible(causal=True))}
        edges = self.shard.piece.documents
        if edges is not None:
            index = torch.arange(q.shape[1], device=q.device)
            number = torch.searchsorted(torch.tensor(edges, device=q.device), index, right=True)
            found[rank].masked_fill_(number[:, None] != number, -torch.inf)

        def visit(source: int, keys: Tensor) -> None:
            found[source] = scores(q[:, self.seen], keys, self.blocks.visible(source, q.device))

        circulate(self.shard, self.own(self.k), self.shape, visit, "ring_scores")
        lse = found[rank].logsumexp(-1)
        for source, s in found.items():
            if source != rank:
                lse[..., self.seen] = torch.logaddexp(lse[..., self.seen], s.logsumexp(-1))
        for source, s in found.items():
            s.sub_(lse[..., self.queries(source), None]).exp_()
        return found


def _without_autocast(run: Callable[..., Any]) -> Callable[..., Any]:
    """Scores are float32 or wider, also where autocast would cast products."""

    @functools.wraps(run)
    def wrapped(ctx: Any, x: Tensor, *more: Any) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            return run(ctx, x, *more)

    return wrapped


class _RingScores(torch.autograd.Function):
    @staticmethod
    @_without_autocast
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, shard: "RankShard") -> Tensor:
        rows = _Rows(shard, q, k, v)
        p = rows.probabilities()
        o = _weighted(p[shard.rank], v)

        def visit(source: int, values: Tensor) -> None:
            o[:, rows.seen] += _weighted(p[source], values)

        circulate(shard, rows.own(v), rows.shape, visit, "ring_scores")
        ctx.sources, ctx.shard = list(p), shard
        ctx.save_for_backward(q, k, v, o, *p.values())
        return o.to(q.dtype)

    @staticmethod
    @once_differentiable
    @_without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        q, k, v, o, *parts = ctx.saved_tensors
        rows, p, rank = _Rows(ctx.shard, q, k, v), dict(zip(ctx.sources, parts, strict=True)), ctx.shard.rank
        grad = at_least_float32(grad)
        row_sum = (grad * o).sum(-1)
        ds: dict[int, Tensor] = {}

        def back_through_values(source: int, values: Tensor) -> Tensor:
            """Gradient of the values; that of the scores is kept for the second ring."""
            asked = rows.queries(source)
            do = grad[:, asked].unflatten(2, (k.shape[2], -1))
            dp = torch.einsum("btgrk,bsgk->bgrts", do, at_least_float32(values))
            own_sum = row_sum[:, asked].unflatten(2, (k.shape[2], -1)).permute(0, 2, 3, 1)
            ds[source] = p[source] * (dp - own_sum[..., None]) * q.shape[-1] ** -0.5
            return torch.einsum("bgrts,btgrk->bsgk", p[source], do)

        dq = torch.zeros_like(at_least_float32(q))

        def back_through_keys(source: int, keys: Tensor) -> Tensor:
            asked = rows.queries(source)
            dq[:, asked] += _weighted(ds[source], keys)
            own = at_least_float32(q[:, asked]).unflatten(2, (k.shape[2], -1))
            return torch.einsum("bgrts,btgrk->bsgk", ds[source], own)

        found = []
        for x, back in ((v, back_through_values), (k, back_through_keys)):
            dx = back(rank, x)
            home = circulate_back(ctx.shard, rows.own(x), rows.shape, back, "ring_scores backward")
            if home is not None:
                rows.own(dx).add_(home)
            found.append(dx.to(x.dtype))
        return dq.to(q.dtype), found[1], found[0], None


def _weighted(weights: Tensor, x: Tensor) -> Tensor:
    """Sum x `[B, J, G, K]` with weights `[B, G, H / G, T, J]`: `[B, T, H, K]`."""
    return torch.einsum("bgrts,bsgk->btgrk", weights, at_least_float32(x)).flatten(2, 3)
