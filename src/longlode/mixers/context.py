"""What the mixers of one forward pass know of the sequence beside its hidden states, made once for all layers."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from longlode.core.errors import ConfigError
from longlode.mixers.segment_map import SegmentMap
from longlode.ops.packed import Offsets, document_offsets


class _once:
    """functools.cached_property without its lock (Python 3.11), which torch.export cannot trace."""

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self.compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = instance.__dict__[self.name] = self.compute(instance)
        return value


class SequenceShard:
    """The part of a sequence that this process holds. This one is all of it: nothing is exchanged.

    A part of several (parallel training) overrides the three exchanges. A mixer calls them where it would otherwise go
    on from its own state; what it gets is what it would have had, had it read the parts before.
    """

    num_ranks = 1
    start_tokens = 0
    """Tokens of the sequence on the ranks before this one."""

    def halo(self, x: Tensor, width: int, first: Tensor | None) -> Tensor | None:
        """The `width` inputs before this part, `[N, C, width]`, of a convolution over x `[B, T, C]`.

        Args: first: what stands before the whole sequence, or None for zeros.
        """
        return first

    def fold(self, make_map: Callable[[], SegmentMap], first: Tensor | None) -> Tensor | None:
        """The state before this part.

        Args: make_map: makes the map of this part, to be given to the ranks behind. first: the state before the whole
          sequence, or None for zero.
        """
        return first

    def gather(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Each tensor `[B, T, ...]` with those of the ranks before in front of it, `[B, start_tokens + T, ...]`."""
        return tensors


ONE_RANK = SequenceShard()


class SequenceContext:
    """Where documents, padding, positions and prefixes stand in a piece of a sequence `[B, T]`.

    Attributes:
      num_rows, num_tokens: B and T. device: of all tensors here.
      cu_seqlens: `[N + 1]` offsets of the documents packed in the one row (B = 1), on the device; or None. Nothing
        passes from one document to the next; with a state, document n goes on from row n of it.
      mask: bool `[B, T]`, False at padding; None: nothing is padding. In each row the real tokens stand together,
        first or last; last only without a state.
      token_ids: int64 `[B, T]`, or None when the text came as embeddings.
      prefix_lengths: int64 `[N]` or `[B]`: so many of a document's first tokens may be read in both directions by the
        mixers that can; None: no token.
      shard: how this piece hangs together with those on other ranks.
      keeps_state: whether the state after the piece is asked for (False in training: it need not be made).
      wants_weights: whether mixers that have attention weights should return them.
    """

    def __init__(
        self,
        num_rows: int,
        num_tokens: int,
        device: torch.device | str = "cpu",
        *,
        cu_seqlens: Tensor | None = None,
        mask: Tensor | None = None,
        token_ids: Tensor | None = None,
        prefix_lengths: Tensor | None = None,
        shard: SequenceShard | None = None,
        keeps_state: bool = True,
        wants_weights: bool = False,
    ) -> None:
        """Check that documents and padding go together. Raises ConfigError."""
        if cu_seqlens is not None and mask is not None:
            raise ConfigError(
                "A padding mask was given together with cu_seqlens; packed rows hold no padding."
            )
        self.num_rows, self.num_tokens, self.device = num_rows, num_tokens, torch.device(device)
        self.cu_seqlens, self.mask = cu_seqlens, mask
        self.token_ids, self.prefix_lengths = token_ids, prefix_lengths
        # Not a default argument: torch.export cannot trace an object that no name leads to.
        self.shard = ONE_RANK if shard is None else shard
        self.keeps_state, self.wants_weights = keeps_state, wants_weights
        self._copies: dict[torch.device, SequenceContext] = {}

    @classmethod
    def of(cls, x: Tensor, **facts: Any) -> "SequenceContext":
        """The context of hidden states x `[B, T, D]`; facts as in `__init__`."""
        return cls(x.shape[0], x.shape[1], x.device, **facts)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "SequenceContext":
        """This context on another device, for layers that lie there (accelerate moves what has this method)."""
        target = torch.device(device)
        if target == self.device:
            return self
        if target not in self._copies:
            moved: dict[str, Any] = {
                name: None
                if (value := getattr(self, name)) is None
                else value.to(target, non_blocking=non_blocking)
                for name in ("cu_seqlens", "mask", "token_ids", "prefix_lengths")
            }
            facts: dict[str, Any] = {
                name: getattr(self, name) for name in ("shard", "keeps_state", "wants_weights")
            }
            self._copies[target] = SequenceContext(self.num_rows, self.num_tokens, target, **moved, **facts)
        return self._copies[target]

    @_once
    def documents(self) -> Offsets | None:
        """The offsets for the ops, checked and copied to the host once; None when each row is one document."""
        if self.cu_seqlens is None:
            return None
        offsets = Offsets.read(self.cu_seqlens)
        document_offsets(offsets, self.num_rows, self.num_tokens)
        return offsets

    @property
    def num_states(self) -> int:
        """Rows of a state: one per document, or one per row."""
        return self.num_rows if self.cu_seqlens is None else self.cu_seqlens.shape[0] - 1

    @_once
    def positions(self) -> Tensor:
        """Position of every token among the real tokens of its document in this piece, int64 `[B, T]`, from 0."""
        if self.mask is not None:
            return (self.mask.long().cumsum(1) - 1).clamp(min=0)
        index = torch.arange(self.num_tokens, device=self.device)
        if self.cu_seqlens is not None:
            offsets = self.cu_seqlens.long()
            index = index - offsets[:-1].repeat_interleave(offsets.diff(), output_size=self.num_tokens)
        return index.expand(self.num_rows, self.num_tokens)

    @_once
    def prefix(self) -> Tensor | None:
        """Bool `[B, T]`, True at the real tokens of a prefix; None when there is no prefix."""
        if self.prefix_lengths is None:
            return None
        lengths = self.prefix_lengths.to(self.device)
        if self.cu_seqlens is not None:
            return self.positions < lengths.repeat_interleave(self.lengths, output_size=self.num_tokens)
        inside = self.positions < lengths[:, None]
        return inside if self.mask is None else inside & self.mask

    @_once
    def lengths(self) -> Tensor:
        """Real tokens of each document in this piece, int64 `[num_states]`."""
        if self.cu_seqlens is not None:
            return self.cu_seqlens.long().diff()
        if self.mask is not None:
            return self.mask.sum(1)
        return torch.full((self.num_rows,), self.num_tokens, dtype=torch.int64, device=self.device)

    @_once
    def rows(self) -> "SequenceContext":
        """The context of `unpack`: one document per row, padded at the right."""
        places = torch.arange(self._longest, device=self.device)
        return SequenceContext(
            self.num_states,
            self._longest,
            self.device,
            mask=places < self.lengths[:, None],
            token_ids=None if self.token_ids is None else self.unpack(self.token_ids),
            prefix_lengths=self.prefix_lengths,
            keeps_state=self.keeps_state,
            wants_weights=self.wants_weights,
        )

    def unpack(self, x: Tensor) -> Tensor:
        """The documents of a packed row x `[1, T, ...]`, one per row and zero at the end: `[N, longest, ...]`."""
        out = x.new_zeros(self.num_states, self._longest, *x.shape[2:])
        return out.index_put(self._places, x[0])

    def repack(self, rows: Tensor) -> Tensor:
        """The inverse of `unpack`: `[N, longest, ...]` -> `[1, T, ...]`."""
        return rows[self._places][None]

    @_once
    def _longest(self) -> int:
        assert self.documents is not None, "only packed rows are unpacked"
        return max(end - start for start, end in itertools.pairwise(self.documents.host))

    @_once
    def _places(self) -> tuple[Tensor, Tensor]:
        """Row and column that each token of the packed row has in `rows`."""
        documents = torch.arange(self.num_states, device=self.device)
        return documents.repeat_interleave(self.lengths, output_size=self.num_tokens), self.positions[0]
