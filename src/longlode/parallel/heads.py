"""All-to-all from the sequence to heads and back (DeepSpeed-Ulysses, arXiv 2309.14509).

A rank gives up its piece of all heads for all tokens of some heads, computes as one rank does, and gives back. Any
computation with independent heads can run in between; the number of ranks must divide the number of heads.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from longlode.core.errors import ConfigError
from longlode.ops.packed import Offsets
from longlode.parallel.plan import SequencePlan

if TYPE_CHECKING:
    from longlode.parallel.shard import RankShard


class WholeRows:
    """The whole rows of a plan as `[B, T, ...]`, real tokens first, and where each rank's tokens stand in them.

    lengths: real tokens of each row. num_tokens: T. offsets: of packed documents.
    """

    def __init__(self, plan: SequencePlan, rank: int, device: torch.device) -> None:
        """Compute the places of the tokens."""
        self.plan, piece = plan, plan.piece(rank)
        starts = plan.cuts[0]
        self.lengths = tuple(stop - start for start, stop in zip(starts, plan.cuts[-1], strict=True))
        self.num_tokens = max(1, *self.lengths)
        self.places = [
            _places(
                [cut - start for cut, start in zip(plan.cuts[r], starts, strict=True)],
                plan.lengths(r),
                self.num_tokens,
            ).to(device)
            for r in range(plan.num_ranks)
        ]
        self.own = _places([0] * plan.num_rows, piece.lengths, piece.num_tokens).to(device)
        self.offsets = (
            None
            if plan.documents is None
            else Offsets(plan.documents, torch.tensor(plan.documents, device=device))
        )

    def mask(self, device: torch.device) -> Tensor | None:
        """Bool `[B, T]`, False at padding; None when there is none."""
        if set(self.lengths) == {self.num_tokens}:
            return None
        return (
            torch.arange(self.num_tokens, device=device) < torch.tensor(self.lengths, device=device)[:, None]
        )


def _places(starts: list[int], lengths: tuple[int, ...], num_tokens: int) -> Tensor:
    """Flat places, in rows of `num_tokens`, of `lengths` tokens from `starts` on."""
    spans = [
        torch.arange(row * num_tokens + start, row * num_tokens + start + length)
        for row, (start, length) in enumerate(zip(starts, lengths, strict=True))
    ]
    return torch.cat(spans)


def _to_heads(shard: "RankShard", x: Tensor, kind: str) -> Tensor:
    """`[B, T', H, ...]` -> `[B, T, H / P, ...]`, 0 at padding."""
    rows, rank, transport = shard.whole, shard.rank, shard.transport
    own = x.flatten(0, 1)[rows.own].unflatten(1, (shard.num_ranks, -1))
    shape = own.shape[2:]
    others = [r for r in range(shard.num_ranks) if r != rank]
    received = transport.exchange(
        {r: own[:, r] for r in others}, {r: (len(rows.places[r]), *shape) for r in others}, x, kind
    )
    out = x.new_zeros(x.shape[0] * rows.num_tokens, *shape)
    for r, part in {**received, rank: own[:, rank]}.items():
        out[rows.places[r]] = part
    return out.unflatten(0, (x.shape[0], rows.num_tokens))


def _from_heads(shard: "RankShard", y: Tensor, kind: str) -> Tensor:
    """Undo `_to_heads`: `[B, T, H / P, ...]` -> `[B, T', H, ...]`, 0 at padding."""
    rows, rank, transport = shard.whole, shard.rank, shard.transport
    flat, num_tokens = y.flatten(0, 1), shard.piece.num_tokens
    others = [r for r in range(shard.num_ranks) if r != rank]
    shape = (len(rows.own), *flat.shape[1:])
    received = transport.exchange(
        {r: flat[rows.places[r]] for r in others}, dict.fromkeys(others, shape), y, kind
    )
    parts = {**received, rank: flat[rows.places[rank]]}
    out = y.new_zeros(y.shape[0] * num_tokens, shard.num_ranks * flat.shape[1], *flat.shape[2:])
    out[rows.own] = torch.cat([parts[r] for r in range(shard.num_ranks)], 1)
    return out.unflatten(0, (y.shape[0], num_tokens))


class _ToHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shard: "RankShard") -> Tensor:
        ctx.shard = shard
        return _to_heads(shard, x, "ulysses")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _from_heads(ctx.shard, grad, "ulysses backward"), None


class _FromHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, shard: "RankShard") -> Tensor:
        ctx.shard = shard
        return _from_heads(shard, y, "ulysses")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _to_heads(ctx.shard, grad, "ulysses backward"), None


def over_heads(
    shard: "RankShard", run: Callable[..., Tensor], tensors: tuple[Tensor | None, ...], num_heads: int
) -> Tensor:
    """Run a computation on all tokens of this rank's share of the heads.

    Args:
      run: maps the tensors, `[B, T, share of heads, ...]`, to an output of that form with the share of `num_heads`.
      tensors: `[B, T', heads, ...]`, the heads `num_heads` or a divisor (grouped heads), or None, which is passed on.
    Returns: `[B, T', num_heads, ...]`.
    Raises: ConfigError when the ranks do not divide `num_heads`.
    """
    ranks = shard.num_ranks
    if num_heads % ranks:
        raise ConfigError(
            f"{num_heads} heads are to be shared by {ranks} ranks (ulysses); expected a multiple. Use fewer ranks per "
            "sequence, or another scheme."
        )
    moved = [None if x is None else _ToHeads.apply(_divisible(x, ranks, num_heads), shard) for x in tensors]
    return _FromHeads.apply(run(*moved), shard)


def shared_heads(num_heads: int, num_groups: int, num_ranks: int) -> int:
    """Heads that are sent of a tensor with `num_groups` heads that serve `num_heads`: a multiple of the ranks."""
    repeats = num_heads // num_groups
    fits = [n for n in range(1, repeats + 1) if repeats % n == 0 and num_groups * n % num_ranks == 0]
    return num_groups * fits[0]


def _divisible(x: Tensor, num_ranks: int, num_heads: int) -> Tensor:
    """Repeat grouped heads as often as needed for the ranks to divide them."""
    repeats = shared_heads(num_heads, x.shape[2], num_ranks) // x.shape[2]
    return x if repeats == 1 else x.repeat_interleave(repeats, dim=2)
