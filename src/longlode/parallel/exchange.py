"""Exchanges with gradients: tokens of the ranks before, the state before a piece, sums over all ranks.

Each is one autograd function; its backward pass is the mirror: what was received sends its gradient back. All ranks run
the same layers, so autograd calls them in one order everywhere. A function's output is always a tensor that the layer
uses, also where nothing is received: otherwise a rank would not take part in the backward exchange.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from longlode.mixers.segment_map import SegmentMap
from longlode.parallel.transport import Transport


@dataclass(frozen=True)
class Route:
    """Rows that a rank sends from a source `[S, ...]`, and where it puts those that it receives, in `[num_rows, ...]`.

    sends, receives: by rank, int64 indices of rows, in the same order at both ends.
    """

    num_rows: int
    sends: Mapping[int, Tensor]
    receives: Mapping[int, Tensor]


class _Rows(torch.autograd.Function):
    """Exchange of rows; rows that nobody sends are 0."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, route: Route, transport: Transport, kind: str) -> Tensor:
        ctx.route, ctx.transport, ctx.kind, ctx.num_source = route, transport, kind, source.shape[0]
        return _move(source, route, transport, kind)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        back = Route(ctx.num_source, ctx.route.receives, ctx.route.sends)
        return _move(grad, back, ctx.transport, f"{ctx.kind} backward"), None, None, None


def _move(source: Tensor, route: Route, transport: Transport, kind: str) -> Tensor:
    out = source.new_zeros(route.num_rows, *source.shape[1:])
    sends = {rank: source[index] for rank, index in route.sends.items()}
    shapes = {rank: (len(index), *source.shape[1:]) for rank, index in route.receives.items()}
    for rank, rows in transport.exchange(sends, shapes, source, kind).items():
        # Added, since a token that several ranks read gets a gradient from each.
        out.index_add_(0, route.receives[rank], rows)
    return out


def exchange_rows(source: Tensor, route: Route, transport: Transport, kind: str) -> Tensor:
    """Send rows of source `[S, ...]` along a route, and return those received `[route.num_rows, ...]`, 0 elsewhere."""
    if source.is_floating_point() or source.is_complex():
        return _Rows.apply(source, route, transport, kind)
    return _move(source, route, transport, kind)


class _Total(torch.autograd.Function):
    """Sum over ranks; as every rank uses the sum, its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, transport: Transport) -> Tensor:
        ctx.transport = transport
        return transport.all_reduce(x, "total")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.transport.all_reduce(grad, "total backward"), None


def total(x: Tensor, transport: Transport) -> Tensor:
    """Return the sum of all ranks' x."""
    if x.is_floating_point():
        return _Total.apply(x, transport)
    return transport.all_reduce(x, "total")


@dataclass(frozen=True)
class Chain:
    """Ranks through which a state passes: `first[r]` is the one where the state that reaches rank r begins."""

    rank: int
    first: Sequence[int]

    @property
    def begins(self) -> bool:
        """True if the state that this rank passes on begins in it, so that the state before the rank ends in it."""
        return self.rank + 1 < len(self.first) and self.first[self.rank + 1] == self.rank

    def reached(self) -> list[int]:
        """Ranks to the right that this rank's map reaches."""
        return [r for r in range(self.rank + 1, len(self.first)) if self.first[r] <= self.rank]


class _Begun:
    """A fold between its begin and its end: what the two autograd functions of it share."""

    def __init__(self, template: SegmentMap, chain: Chain, transport: Transport) -> None:
        self.template, self.chain, self.transport = template, chain, transport
        self.wait: Callable[[], list[Tensor]] | None = None
        self.right: list[SegmentMap] = []
        """Maps of the ranks after this one, as far as this one reaches."""
        self.state: Tensor | None = None
        """The state before this rank, during the backward pass."""

    def begin(self, buffer: Tensor, kind: str) -> None:
        self.wait = self.transport.begin_all_gather(buffer, kind)

    def end(self) -> list[Tensor]:
        assert self.wait is not None, "begun before it ends"
        gathered, self.wait = self.wait(), None
        return gathered


class _Send(torch.autograd.Function):
    """This rank's map on its way to all others: one all-gather begins, and `_Receive` waits for it.

    Backward: waits for the gradients of the states of all ranks, for which `_Receive` has begun one all-gather, and
    follows its map through those of the ranks after it. The output is a token, so that autograd keeps the order.
    """

    @staticmethod
    def forward(ctx: Any, begun: _Begun, *tensors: Tensor) -> Tensor:
        begun.begin(_pack(tensors), "fold")
        ctx.begun = begun
        ctx.save_for_backward(*tensors)
        return tensors[0].new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, token: Tensor) -> tuple[Tensor | None, ...]:
        begun, tensors = ctx.begun, ctx.saved_tensors
        gathered, reached = begun.end(), begun.chain.reached()
        if not reached:
            return (None, *map(torch.zeros_like, tensors))
        with torch.enable_grad(), torch.autocast(token.device.type, enabled=False):
            own = [x.detach().requires_grad_() for x in tensors]
            # The states of the ranks to the right, as functions of this rank's map.
            mine = _with_tensors(begun.template, own)
            states = [mine(None if begun.chain.begins else begun.state)]
            for one in begun.right:
                states.append(one(states[-1]))
            wanted = [_unpack(gathered[rank], states[:1])[0] for rank in reached]
            grads = torch.autograd.grad(states, own, wanted, allow_unused=True, materialize_grads=True)
        begun.state = None
        return None, *grads


class _Receive(torch.autograd.Function):
    """The state before this rank, of the maps of the ranks before, which are composed here."""

    @staticmethod
    def forward(ctx: Any, begun: _Begun, token: Tensor, *tensors: Tensor) -> Tensor:
        chain, own = begun.chain, _with_tensors(begun.template, tensors)
        maps = [
            own if rank == chain.rank else _with_tensors(begun.template, _unpack(one, tensors))
            for rank, one in enumerate(begun.end())
        ]
        state = own.nothing()
        for one in maps[chain.first[chain.rank] : chain.rank]:
            state = one(state)
        begun.right = [maps[rank] for rank in chain.reached()[:-1]]
        ctx.begun, ctx.num_tensors = begun, len(tensors)
        ctx.save_for_backward(state)
        return state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (ctx.begun.state,) = ctx.saved_tensors
        ctx.begun.begin(_pack([grad]), "fold backward")
        return None, grad.new_zeros(()), *[None] * ctx.num_tensors


def begin_fold(own: SegmentMap, chain: Chain, transport: Transport) -> Callable[[], Tensor]:
    """Send the map of this piece, on the carried rows, to all ranks; the returned function gives the state before it.

    What is computed between the two runs while maps are on their way; so it is backward, with gradients.
    """
    begun, tensors = _Begun(_without_tensors(own), chain, transport), _tensors(own)
    token = _Send.apply(begun, *tensors)

    def end() -> Tensor:
        # Autocast would compose the maps in half precision.
        with torch.autocast(own.added.device.type, enabled=False):
            return _Receive.apply(begun, token, *[x.detach() for x in tensors])

    return end


def _tensors(one: SegmentMap) -> list[Tensor]:
    values = [getattr(one, entry.name) for entry in dataclasses.fields(one)]
    return [value for value in values if isinstance(value, Tensor)]


def _without_tensors(one: SegmentMap) -> SegmentMap:
    """Keep the kind of a map and which tensors it has, so that autograd holds the tensors alone."""
    empty = torch.empty(0)
    present = {
        entry.name: empty for entry in dataclasses.fields(one) if isinstance(getattr(one, entry.name), Tensor)
    }
    return dataclasses.replace(one, **present)


def _with_tensors(template: SegmentMap, tensors: Sequence[Tensor]) -> SegmentMap:
    names = [e.name for e in dataclasses.fields(template) if isinstance(getattr(template, e.name), Tensor)]
    return dataclasses.replace(template, **dict(zip(names, tensors, strict=True)))


def _wire_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """float32 or wider: chains of maps in half precision lose everything."""
    wide = any(x.dtype in (torch.float64, torch.complex128) for x in tensors)
    return torch.float64 if wide else torch.float32


def _pack(tensors: Sequence[Tensor]) -> Tensor:
    """All numbers of the tensors in one vector."""
    real = [torch.view_as_real(x.resolve_conj()) if x.is_complex() else x for x in tensors]
    return torch.cat([x.reshape(-1).to(_wire_dtype(tensors)) for x in real])


def _unpack(buffer: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Undo `_pack`."""
    counts = [x.numel() * (2 if x.is_complex() else 1) for x in like]
    out = []
    for part, x in zip(buffer.split(counts), like, strict=True):
        whole = torch.view_as_complex(part.view(*x.shape, 2)) if x.is_complex() else part.view(x.shape)
        out.append(whole.to(x.dtype))
    return out
