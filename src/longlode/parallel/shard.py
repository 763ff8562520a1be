"""The shard of one rank: what a mixer asks for halo, fold, gather and attention, answered by exchanges of a plan."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from longlode.core.errors import ConfigError
from longlode.mixers import SegmentMap, SequenceShard
from longlode.ops.packed import Offsets
from longlode.parallel.attention import AttentionScheme, make_scheme
from longlode.parallel.exchange import Chain, Route, begin_fold, exchange_rows, total
from longlode.parallel.heads import WholeRows, over_heads
from longlode.parallel.plan import Piece, SequencePlan
from longlode.parallel.transport import Transport


class RankShard(SequenceShard):
    """One rank's piece of the sequences of a plan; pass it to a model as `shard`.

    Attributes: plan, transport (with its `traffic`), piece. attention: the scheme of softmax attention;
    numbered_calls: how its operator finds this object. Gradients of
    the parameters are those of this piece's loss: sum (do not average) them over the ranks, see `sum_gradients`.
    """

    def __init__(
        self,
        plan: SequencePlan,
        transport: Transport,
        attention: str | AttentionScheme = "gather",
        states: Literal["fold", "ulysses"] = "fold",
        device: torch.device | str = "cpu",
    ) -> None:
        """Make the shard of the transport's rank. attention: a name of `ATTENTION_SCHEMES`, or a scheme. states:
        fold the states of recurrent mixers, or exchange sequence for heads ("ulysses") where a mixer can, in training.

        Raises: ConfigError when the plan has another number of ranks, or on an unknown scheme.
        """
        if plan.num_ranks != transport.num_ranks:
            raise ConfigError(
                f"The plan is for {plan.num_ranks} ranks and the transport has {transport.num_ranks}; make the plan "
                "for as many."
            )
        self.plan, self.transport, self.device = plan, transport, torch.device(device)
        self.rank, self.num_ranks = transport.rank, plan.num_ranks
        self.piece: Piece = plan.piece(self.rank)
        if states not in ("fold", "ulysses"):
            raise ConfigError(f"parallel.states is {states!r}; expected fold or ulysses.")
        self.states = states
        self.attention = make_scheme(attention) if isinstance(attention, str) else attention
        self.numbered_calls: dict[int, Any] = {}
        self._layout = _Layout.packed(self.piece)
        self._routes: dict[tuple[int | None, int, bool], tuple[int, Route]] = {}

    @property
    def offsets(self) -> Offsets | None:
        """Offsets of the packed documents in the piece, for the ops."""
        edges = self.piece.documents
        return None if edges is None else Offsets(edges, torch.tensor(edges, device=self.device))

    @cached_property
    def whole(self) -> WholeRows:
        """The whole rows, for computations by heads."""
        return WholeRows(self.plan, self.rank, self.device)

    @property
    def tokens_before(self) -> Tensor:  # type: ignore[override]
        """See `SequenceShard.tokens_before`."""
        before = torch.zeros(self.piece.num_states, dtype=torch.int64)
        counts = self.plan.tokens_before(self.rank)
        before[: len(counts)] = torch.tensor(counts)
        return before.to(self.device)

    def halo(self, x: Tensor, width: int, first: Tensor | None) -> Tensor:
        """See `SequenceShard.halo`. Each rank sends a rank only what that needs: at most `width` tokens of a row."""
        source = x.flatten(0, 1)
        if first is not None:
            # What stands before the whole sequence, as tokens behind those of the piece.
            source = torch.cat((source, first.mT.flatten(0, 1).to(x.dtype)))
        _, route = self._route(width, 0 if first is None else width, fixed=True)
        rows = exchange_rows(source, route, self.transport, "halo")
        return self._with_own(rows.unflatten(0, (-1, width)).mT, first)

    def begin_fold(self, make_map: Callable[[], SegmentMap], first: Tensor | None) -> Callable[[], Tensor]:
        """See `SequenceShard.begin_fold`: one all-gather of the maps, float32 or wider, whatever the length."""
        own, carried = make_map(), self._layout.sends
        rows = _rows_of(own, carried)
        if first is not None and self.piece.starts_carried:
            # The state before the sequence goes into what this rank passes on.
            with torch.autocast(first.device.type, enabled=False):
                rows = replace(rows, added=rows(first[carried]))
        wait = begin_fold(rows, Chain(self.rank, self.plan.first_ranks), self.transport)
        return lambda: self._with_own(wait(), first, own)

    def gather(self, *tensors: Tensor, last: int | None = None) -> tuple[Tensor, ...]:
        """See `SequenceShard.gather`; a rank receives each token that it needs once, from the rank that holds it."""
        width, route = self._route(last)
        return tuple(self._prepended(x, width, route) for x in tensors)

    def gathered_mask(self, mask: Tensor | None, last: int | None = None) -> Tensor | None:
        """See `SequenceShard.gathered_mask`; it follows from the plan."""
        width, _ = self._route(last)
        if not width:
            return mask
        num_states, num_tokens = self._layout.shape
        counts = torch.zeros(num_states, dtype=torch.int64, device=self.device)
        for row, count in enumerate(self.plan.tokens_before(self.rank)):
            counts[row] = min(count, width)
        if mask is None and (counts == width).all():
            return None
        before = torch.arange(width, device=self.device) >= width - counts[:, None]
        here = before.new_ones(num_states, num_tokens) if mask is None else mask
        return torch.cat((before, here), dim=1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """See `SequenceShard.attend`."""
        return self.attention(self, q, k, v, window)

    @property
    def exchanges_heads(self) -> bool:  # type: ignore[override]
        """See `SequenceShard.exchanges_heads`."""
        return self.states == "ulysses"

    def by_heads(self, run: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
        """See `SequenceShard.by_heads`."""
        num_heads = max(x.shape[2] for x in tensors if x is not None)
        return over_heads(self, partial(run, self.whole.offsets), tensors, num_heads)

    def total(self, x: Tensor) -> Tensor:
        """See `SequenceShard.total`."""
        return total(x, self.transport)

    def document_total(self, x: Tensor) -> Tensor:
        """See `SequenceShard.document_total`: one `total` of B rows, or of P - 1, since one document spans each cut."""
        if self.plan.documents is None:
            return self.total(x)
        # A document that goes on after the rank where it begins has the number of that rank.
        first, rows, numbers = self.plan.first_ranks, [], []
        if self.piece.receives:
            rows, numbers = [0], [first[self.rank]]
        if Chain(self.rank, first).begins:
            rows, numbers = [*rows, self.piece.num_states - 1], [*numbers, self.rank]
        here, place = (torch.tensor(one, dtype=torch.int64, device=x.device) for one in (rows, numbers))
        sums = x.new_zeros(self.num_ranks - 1, *x.shape[1:]).index_add(0, place, x[here])
        # A function of what was exchanged also without such a document: all ranks take part in the backward exchange.
        return x.index_copy(0, here, self.total(sums)[place])

    def unpacked(self) -> "RankShard":
        """See `SequenceShard.unpacked`."""
        if self.piece.documents is None:
            return self
        other = RankShard(self.plan, self.transport, self.attention, self.states, self.device)
        other._layout = _Layout.rows(self.piece)
        return other

    def _with_own(self, carried: Tensor, first: Tensor | None, own: SegmentMap | None = None) -> Tensor:
        """Put the carried rows into `[N, ...]`; documents that begin here have `first`, or nothing before them."""
        if self.piece.receives:
            if len(carried) == self.piece.num_states:
                if first is None or not first.requires_grad:
                    return carried
                # Still a function of the replaced state, which may come from an exchange: see below.
                return carried + 0 * first.flatten()[0]
            others = _nothing(own, carried, self.piece.num_states) if first is None else first
            return torch.cat((carried, others[1:].to(carried.dtype)))
        if first is None:
            if len(carried) == self.piece.num_states:
                return carried
            return torch.cat((carried, _nothing(own, carried, self.piece.num_states)[1:]))
        # Still a function of what was exchanged, so that this rank takes part in the backward exchange.
        return first.to(carried.dtype) + 0 * carried.flatten()[0]

    def _prepended(self, x: Tensor, width: int, route: Route) -> Tensor:
        rows = exchange_rows(x.flatten(0, 1), route, self.transport, "gather")
        rows = rows.unflatten(0, (self.plan.num_rows, width))
        missing = x.shape[0] - len(rows)
        if missing:
            rows = torch.cat((rows, rows.new_zeros(missing, *rows.shape[1:])))
        return torch.cat((rows, x), dim=1)

    def _route(self, limit: int | None, num_first: int = 0, fixed: bool = False) -> tuple[int, Route]:
        """Width of the rows, and the route of the last `limit` (None: all) tokens before every piece.

        num_first: tokens before the whole sequence, at the end of the source, which count too. fixed: the width is
        `limit`; otherwise the most that any row has.
        """
        key = (limit, num_first, fixed)
        if key not in self._routes:
            most = max(self.plan.tokens_before(self.rank))
            width = limit if fixed else most if limit is None else min(limit, most)
            assert width is not None
            route = Route(
                self.plan.num_rows * width,
                self._sends(limit, num_first),
                self._receives(limit, num_first, width),
            )
            self._routes[key] = width, route
        return self._routes[key]

    def _sends(self, limit: int | None, num_first: int) -> dict[int, Tensor]:
        sends = {}
        for rank in range(self.rank + 1, self.num_ranks):
            counts = self._asked(rank, limit, num_first).get(self.rank)
            if counts is not None:
                index = self._layout.last_tokens(counts, self.plan.tails[self.rank], num_first)
                sends[rank] = index.to(self.device)
        return sends

    def _receives(self, limit: int | None, num_first: int, width: int) -> dict[int, Tensor]:
        receives, filled = {}, [0] * self.plan.num_rows
        for rank, counts in self._asked(self.rank, limit, num_first).items():
            spans = []
            for row, count in enumerate(counts):
                # Rows are filled from the right, nearest rank first.
                stop = (row + 1) * width - filled[row]
                spans.append(torch.arange(stop - count, stop))
                filled[row] += count
            receives[rank] = torch.cat(spans).to(self.device)
        return receives

    def _asked(self, rank: int, limit: int | None, num_first: int) -> dict[int, tuple[int, ...]]:
        """Tokens that `rank` wants of each rank before it, nearest first, those before the sequence included."""
        wanted, first = self.plan.wanted(rank, limit), self.plan.first_ranks[rank]
        if not num_first or limit is None or first == rank:
            return wanted
        sums = [sum(counts[row] for counts in wanted.values()) for row in range(self.plan.num_rows)]
        found = wanted.get(first, (0,) * self.plan.num_rows)
        missing = [limit - have for have in sums]
        return {**wanted, first: tuple(n + more for n, more in zip(found, missing, strict=True))}


class _Layout(NamedTuple):
    """Places of the carried rows' tokens in a piece's tensors.

    shape: (rows, tokens) of the tensors. sends: rows of a state that go on to the next rank. ends: flat index after the
    last token of each carried row.
    """

    shape: tuple[int, int]
    sends: slice
    ends: tuple[int, ...]

    @classmethod
    def packed(cls, piece: Piece) -> "_Layout":
        """A batch `[B, T']`, or the one packed row `[1, T']`."""
        num_rows, T = piece.plan.num_rows, piece.num_tokens
        last = slice(piece.num_states - 1, None) if piece.documents is not None else slice(None)
        return cls((num_rows, T), last, tuple(row * T + length for row, length in enumerate(piece.lengths)))

    @classmethod
    def rows(cls, piece: Piece) -> "_Layout":
        """One document per row `[N, L]`, padded at the right to the longest."""
        assert piece.documents is not None
        lengths = [b - a for a, b in zip(piece.documents, piece.documents[1:], strict=False)]
        longest, N = max(lengths), len(lengths)
        return cls((N, longest), slice(N - 1, None), ((N - 1) * longest + lengths[-1],))

    def last_tokens(self, counts: Sequence[int], available: Sequence[int], num_first: int) -> Tensor:
        """Flat indices of the last `counts[row]` tokens of each carried row, of which `available[row]` are here.

        Further ones are of the `num_first` tokens per state row before the sequence, behind all tokens of the piece.
        """
        spans = []
        num_rows, num_tokens = self.shape
        for row, (count, have) in enumerate(zip(counts, available, strict=True)):
            extra = max(0, count - have)
            stop = num_rows * num_tokens + ((self.sends.start or 0) + row + 1) * num_first
            spans.append(torch.arange(stop - extra, stop))
            spans.append(torch.arange(self.ends[row] - (count - extra), self.ends[row]))
        return torch.cat(spans)


def _rows_of(one: SegmentMap, rows: slice) -> SegmentMap:
    matrix, log_decay = (None if x is None else x[rows] for x in (one.matrix, one.log_decay))
    return replace(one, added=one.added[rows], matrix=matrix, log_decay=log_decay)


def _nothing(own: SegmentMap | None, like: Tensor, num_rows: int) -> Tensor:
    """State before documents that begin here, `[N, ...]`."""
    return like.new_zeros(num_rows, *like.shape[1:]) if own is None else own.nothing()
