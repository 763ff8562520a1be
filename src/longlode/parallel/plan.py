"""Plan of a sharded sequence: which rank holds which tokens, known to every rank without communication.

Ranks hold contiguous pieces of every row, rank 0 the first. Between two ranks a row passes its state on, unless the cut
is at the edge of two packed documents. Rows that pass on a state are the *carried rows*: all rows of a batch; of a
packed row the one document at the cut.
"""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from longlode.core.errors import ConfigError

IGNORED = -100
"""Label of a position without a label."""


@dataclass(frozen=True)
class SequencePlan:
    """Pieces of B rows on P ranks. Make one with `SequencePlan.even` or `SequencePlan.at`.

    cuts: P + 1 tuples of B places: rank r holds tokens `cuts[r][b]` to `cuts[r + 1][b] - 1` of row b. The first and
      last tuple are the first and last real token of each row (its length, without padding). Pieces may be empty.
    documents: offsets `(0, ..., T)` of the documents packed in the one row; None: every row is one document.
    """

    cuts: tuple[tuple[int, ...], ...]
    documents: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Check the order of the cuts, and documents against rows. Raises: ConfigError."""
        if len(self.cuts) < 2 or not self.cuts[0] or len({len(cut) for cut in self.cuts}) != 1:
            raise ConfigError(
                f"cuts has {len(self.cuts)} places; expected one more than ranks, each with a number per row."
            )
        for row, places in enumerate(zip(*self.cuts, strict=True)):
            if places[0] < 0 or any(after < before for before, after in itertools.pairwise(places)):
                raise ConfigError(f"The cuts of row {row} are {list(places)}; expected ascending places.")
        if self.documents is None:
            return
        edges = list(self.documents)
        if len(edges) < 2 or edges != sorted(set(edges)) or edges[0]:
            raise ConfigError(f"documents is {edges[:9]}; expected ascending offsets that start at 0.")
        if self.num_rows != 1 or self.cuts[0][0] or self.cuts[-1][0] != edges[-1]:
            raise ConfigError(
                f"Packed documents end at {edges[-1]}, and the plan holds {self.num_rows} rows from "
                f"{self.cuts[0][0]} to {self.cuts[-1][0]}; expected one row, and the cuts from end to end."
            )

    @classmethod
    def even(
        cls,
        num_ranks: int,
        shape: Sequence[int],
        *,
        cu_seqlens: Tensor | Sequence[int] | None = None,
        mask: Tensor | None = None,
    ) -> "SequencePlan":
        """Cut every row of `shape` (B, T) into pieces that differ by at most one token.

        Args: cu_seqlens: `[N + 1]` offsets of packed documents. mask: bool `[B, T]`, False at padding, at the
          beginning or end of each row; each row's real tokens are cut, so all ranks get an equal share of them.
        Raises: ConfigError on padding inside a row, or with cu_seqlens.
        """
        if num_ranks < 1:
            raise ConfigError(f"num_ranks is {num_ranks}; expected at least 1.")
        starts, lengths = _real_tokens(shape, mask)
        cuts = tuple(
            tuple(start + length * r // num_ranks for start, length in zip(starts, lengths, strict=True))
            for r in range(num_ranks + 1)
        )
        return cls(cuts, _host(cu_seqlens, mask))

    @classmethod
    def at(
        cls,
        places: Sequence[int],
        shape: Sequence[int],
        *,
        cu_seqlens: Tensor | Sequence[int] | None = None,
        mask: Tensor | None = None,
    ) -> "SequencePlan":
        """Cut all rows of `shape` (B, T) at the same ascending `places`, one fewer than ranks.

        Equal places make empty pieces. Other arguments and errors: as `even`.
        """
        starts, lengths = _real_tokens(shape, mask)
        cuts = tuple(
            tuple(min(max(place, s), s + n) for s, n in zip(starts, lengths, strict=True))
            for place in (0, *places, shape[1])
        )
        return cls(cuts, _host(cu_seqlens, mask))

    @property
    def num_ranks(self) -> int:
        """P, ranks."""
        return len(self.cuts) - 1

    @property
    def num_rows(self) -> int:
        """B, rows of the whole batch and of each piece."""
        return len(self.cuts[0])

    @cached_property
    def first_ranks(self) -> tuple[int, ...]:
        """For each rank, the first rank from which state reaches it; the rank itself if none does."""
        first = [0]
        for rank in range(1, self.num_ranks):
            if not self._passes(rank):
                first.append(rank)
            elif self.documents is not None and self._document_start(rank) >= self.cuts[rank - 1][0]:
                first.append(rank - 1)
            else:
                first.append(first[-1])
        return tuple(first)

    @cached_property
    def tails(self) -> tuple[tuple[int, ...], ...]:
        """For each rank, tokens of each carried row that it passes to the right, `[P][B]`."""
        return tuple(
            lengths if self.documents is None else (self._tail(rank),)
            for rank, lengths in enumerate(map(self.lengths, range(self.num_ranks)))
        )

    def lengths(self, rank: int) -> tuple[int, ...]:
        """Real tokens of each row on a rank, `[B]`."""
        return tuple(b - a for a, b in zip(self.cuts[rank], self.cuts[rank + 1], strict=True))

    def tokens_before(self, rank: int) -> tuple[int, ...]:
        """Tokens of each carried row on the ranks before `rank` from which its state comes, `[B]`."""
        ranks = range(self.first_ranks[rank], rank)
        return tuple(sum(self.tails[r][row] for r in ranks) for row in range(self.num_rows))

    def wanted(self, rank: int, limit: int | None) -> dict[int, tuple[int, ...]]:
        """Tokens `[B]` of each rank before, nearest first, that `rank` needs to have the last `limit` (None: all)."""
        left = [limit if limit is not None else count for count in self.tokens_before(rank)]
        found = {}
        for source in range(rank - 1, self.first_ranks[rank] - 1, -1):
            counts = tuple(min(n, have) for n, have in zip(left, self.tails[source], strict=True))
            left = [n - taken for n, taken in zip(left, counts, strict=True)]
            if any(counts):
                found[source] = counts
        return found

    def piece(self, rank: int) -> "Piece":
        """Return the piece of a rank."""
        return Piece(self, rank)

    def _passes(self, rank: int) -> bool:
        """Return True if state passes from rank - 1 to `rank`."""
        if self.documents is None:
            return True
        cut = self.cuts[rank][0]
        return self.documents[bisect.bisect_left(self.documents, cut)] != cut

    def _document_start(self, rank: int) -> int:
        """Offset of the document in which the piece of `rank` begins."""
        assert self.documents is not None
        return self.documents[bisect.bisect_right(self.documents, self.cuts[rank][0]) - 1]

    def _tail(self, rank: int) -> int:
        """Tokens on `rank` of the document that goes on after it; 0 if its last document ends there."""
        if rank + 1 >= self.num_ranks or not self._passes(rank + 1):
            return 0
        return self.cuts[rank + 1][0] - max(self.cuts[rank][0], self._document_start(rank + 1))


@dataclass(frozen=True)
class Piece:
    """The tokens of one rank, `[B, T']`: its part of every row, padded at the right to the longest part.

    A rank without tokens holds one padded position, so that every layer runs and takes part in all exchanges.
    """

    plan: SequencePlan
    rank: int

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Real tokens of each row here, `[B]`."""
        return self.plan.lengths(self.rank)

    @property
    def num_tokens(self) -> int:
        """T', positions of the piece."""
        return max(1, *self.lengths)

    @cached_property
    def documents(self) -> tuple[int, ...] | None:
        """Offsets of the packed documents inside the piece; None without packing, and in an empty piece."""
        edges = self.plan.documents
        if edges is None or not self.lengths[0]:
            return None
        start, stop = self.plan.cuts[self.rank][0], self.plan.cuts[self.rank + 1][0]
        return (0, *(edge - start for edge in edges if start < edge < stop), stop - start)

    @property
    def num_states(self) -> int:
        """Rows of a state here: one per document, or per row."""
        return self.plan.num_rows if self.documents is None else len(self.documents) - 1

    @property
    def receives(self) -> bool:
        """True if the first document, or every row, continues from the ranks before."""
        return self.plan.first_ranks[self.rank] < self.rank

    @property
    def starts_carried(self) -> bool:
        """True if the rows that this rank passes on begin here."""
        return not self.receives or (self.documents is not None and len(self.documents) > 2)

    def cu_seqlens(self, device: torch.device | str = "cpu") -> Tensor | None:
        """`documents` as a tensor, int32 `[N + 1]`."""
        edges = self.documents
        return None if edges is None else torch.tensor(edges, dtype=torch.int32, device=device)

    def mask(self, device: torch.device | str = "cpu") -> Tensor | None:
        """Bool `[B, T']`, False at padding; None when there is none."""
        if all(length == self.num_tokens for length in self.lengths):
            return None
        lengths = torch.tensor(self.lengths, device=device)
        return torch.arange(self.num_tokens, device=device) < lengths[:, None]

    def take(self, x: Tensor, fill: Any = 0) -> Tensor:
        """Return this piece of x `[B, T, ...]`: `[B, T', ...]`, `fill` at padding."""
        starts = self.plan.cuts[self.rank]
        if len(set(starts)) == 1 and set(self.lengths) == {self.num_tokens}:
            return x[:, starts[0] : starts[0] + self.num_tokens]
        out = x.new_full((x.shape[0], self.num_tokens, *x.shape[2:]), fill)
        for row, (start, length) in enumerate(zip(starts, self.lengths, strict=True)):
            out[row, :length] = x[row, start : start + length]
        return out

    def put(self, y: Tensor, out: Tensor) -> None:
        """Write this piece y `[B, T', ...]` into its place in `out` `[B, T, ...]`."""
        for row, (start, length) in enumerate(zip(self.plan.cuts[self.rank], self.lengths, strict=True)):
            out[row, start : start + length] = y[row, :length]

    def of_documents(self, values: Tensor) -> Tensor:
        """Return the entries `[num_states]` of the documents here, of one per packed document (or per row)."""
        if self.plan.documents is None:
            return values
        first = bisect.bisect_right(self.plan.documents, self.plan.cuts[self.rank][0]) - 1
        first = min(first, len(self.plan.documents) - 2)  # an empty piece at the end
        return values[first : first + self.num_states]

    def model_inputs(
        self,
        tokens: Tensor,
        shift_labels: Tensor | None = None,
        label_weights: Tensor | None = None,
        num_items: Tensor | float | None = None,
        prefix_lengths: Tensor | None = None,
    ) -> Mapping[str, Any]:
        """Return the arguments of `LonglodeForCausalLM.forward` for this piece, except the shard.

        Args:
          tokens: int64 `[B, T]`, the whole batch.
          shift_labels: int64 `[B, T]`, the token that should follow each position (see `next_tokens`); shifted before
            the cut, since the label of a piece's last token is on the next rank.
          label_weights: `[B, T]`, weight of each label in the sum.
          num_items: divisor of the summed loss, of all ranks together; None: the number of labels.
          prefix_lengths: int64 `[B]` or `[N]`, tokens of each document's prefix, wherever its ranks are.
        """
        inputs: dict[str, Any] = {
            "input_ids": self.take(tokens),
            "attention_mask": self.mask(tokens.device),
            "cu_seqlens": self.cu_seqlens(tokens.device),
        }
        if shift_labels is not None:
            inputs["shift_labels"] = self.take(shift_labels, IGNORED)
            inputs["num_items_in_batch"] = (
                (shift_labels != IGNORED).sum().clamp(min=1) if num_items is None else num_items
            )
        if label_weights is not None:
            inputs["label_weights"] = self.take(label_weights)
        if prefix_lengths is not None:
            inputs["prefix_lengths"] = self.of_documents(prefix_lengths)
        return inputs


def next_tokens(
    tokens: Tensor, *, cu_seqlens: Tensor | Sequence[int] | None = None, mask: Tensor | None = None
) -> Tensor:
    """Return the label of every position of tokens `[B, T]`: the next token of its document, or -100 at the end."""
    shifted = torch.full_like(tokens, IGNORED)
    shifted[:, :-1] = tokens[:, 1:]
    if cu_seqlens is not None:
        ends = torch.as_tensor(cu_seqlens, device=tokens.device).long()[1:] - 1
        shifted[:, ends] = IGNORED
    if mask is not None:
        asked = mask.clone()
        asked[:, :-1] &= mask[:, 1:]
        shifted.masked_fill_(~asked, IGNORED)
    return shifted


def _real_tokens(shape: Sequence[int], mask: Tensor | None) -> tuple[list[int], list[int]]:
    """First real token and number of real tokens of each row."""
    num_rows, num_tokens = shape
    if mask is None:
        return [0] * num_rows, [num_tokens] * num_rows
    lengths, first = mask.sum(1), mask.long().argmax(1)
    place = torch.arange(num_tokens, device=mask.device)
    together = (place >= first[:, None]) & (place < (first + lengths)[:, None])
    if (together != mask).any():
        raise ConfigError(
            "The padding mask has padding between real tokens of a row; expected it at the beginning or the end."
        )
    return first.tolist(), lengths.tolist()


def _host(cu_seqlens: Tensor | Sequence[int] | None, mask: Tensor | None) -> tuple[int, ...] | None:
    if cu_seqlens is None:
        return None
    if mask is not None:
        raise ConfigError("A padding mask came together with cu_seqlens; packed rows hold no padding.")
    return tuple(cu_seqlens.tolist() if isinstance(cu_seqlens, Tensor) else cu_seqlens)
