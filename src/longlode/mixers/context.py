"""Context of a forward pass: documents, padding, positions and shards, made once for all layers."""

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
    """The part of a sequence in this process. This class is the whole sequence: nothing is exchanged.

    A part of several (`longlode.parallel`) overrides the exchanges. A mixer calls them where it would otherwise
    continue from its own state; it gets the state that it would have after reading the parts before. The first document
    of a packed row, or every row of a batch, may continue from those; other documents begin here.
    """

    num_ranks = 1
    tokens_before: Tensor | None = None
    """Number of tokens of each document (or row) on the ranks before this one, int64 `[num_states]`; None: 0."""

    def halo(self, x: Tensor, width: int, first: Tensor | None) -> Tensor | None:
        """Return the `width` inputs before this part, `[N, C, width]`, of a convolution over x `[B, T, C]`.

        Args: first: the inputs before the whole sequence, or None for zeros.
        """
        return first

    def begin_fold(
        self, make_map: Callable[[], SegmentMap], first: Tensor | None
    ) -> Callable[[], Tensor | None]:
        """Send the map of this part on its way; the returned function waits for those of the parts before this one.

        It returns the state before this part. What is computed in between delays nobody.
        Args: make_map: a function that makes the map, for later ranks. first: the state before the whole sequence, or
          None for zero.
        """
        return lambda: first

    def fold(self, make_map: Callable[[], SegmentMap], first: Tensor | None) -> Tensor | None:
        """Return the state before this part. Args: as of `begin_fold`."""
        return self.begin_fold(make_map, first)()

    def gather(self, *tensors: Tensor, last: int | None = None) -> tuple[Tensor, ...]:
        """Prepend to each tensor `[B, T, ...]` those of the ranks before: `[B, S + T, ...]`.

        S is the most that any row or document has there, at most `last`; rows with fewer have zeros in front.
        """
        return tensors

    def gathered_mask(self, mask: Tensor | None, last: int | None = None) -> Tensor | None:
        """Return the padding mask `[B, S + T]` of what `gather` returns, for that of this part; None: no padding."""
        return mask

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """Compute causal attention of this part's queries over the whole sequence.

        Only of several ranks. Args: q `[B, T, H, K]`; k, v `[B, T, G, K]`; window: as in `ops.attention`.
        """
        raise NotImplementedError("one rank attends by ops.attention")

    exchanges_heads = False
    """True if mixers whose heads are independent should run `by_heads` from an empty state, instead of `fold`."""

    def by_heads(self, run: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
        """Run a recurrence from an empty state on all tokens of some heads. Only where `exchanges_heads`.

        Args: run: maps (offsets of documents, tensors `[B, all T, some heads, ...]`) to an output like the first tensor
          with the heads of the third. tensors: `[B, T, heads, ...]`, or None, which is passed on.
        Returns: the output for this part `[B, T, heads, ...]`.
        """
        raise NotImplementedError("one rank has all tokens of all heads")

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of x over all ranks."""
        return x

    def document_total(self, x: Tensor) -> Tensor:
        """Return the sum of x `[num_states, ...]` over all parts of each document (or row)."""
        return x

    def unpacked(self) -> "SequenceShard":
        """Return the shard for `SequenceContext.rows`, where each document of a packed row is a row."""
        return self


ONE_RANK = SequenceShard()


class SequenceContext:
    """Documents, padding, positions and prefixes in a piece of a sequence `[B, T]`.

    Attributes:
      num_rows, num_tokens: B and T. device: of all tensors here.
      cu_seqlens: `[N + 1]` offsets of the documents packed in the one row (B = 1), on the device; or None. Nothing
        passes from one document to the next; with a state, document n continues from its row n.
      mask: bool `[B, T]`, False at padding; None: nothing is padding. In each row the real tokens are contiguous, at
        the beginning or the end; at the end only without a state.
      token_ids: int64 `[B, T]`, or None when the text came as embeddings.
      prefix_lengths: int64 `[N]` or `[B]`: number of a document's first tokens that may be read in both directions by
        mixers that support it, wherever they are; None: 0.
      shard: exchange with the pieces on other ranks.
      keeps_state: True if the state after the piece is needed (False in training).
      wants_weights: True if mixers with attention weights should return them.
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
        """Check that documents and padding agree. Raises: ConfigError."""
        if cu_seqlens is not None and mask is not None:
            raise ConfigError(
                "A padding mask was given together with cu_seqlens; packed rows hold no padding."
            )
        self.num_rows, self.num_tokens, self.device = num_rows, num_tokens, torch.device(device)
        self.cu_seqlens, self.mask = cu_seqlens, mask
        self.token_ids, self.prefix_lengths = token_ids, prefix_lengths
        # Not a default argument: torch.export cannot trace an anonymous object.
        self.shard = ONE_RANK if shard is None else shard
        self.keeps_state, self.wants_weights = keeps_state, wants_weights
        self._copies: dict[torch.device, SequenceContext] = {}

    @classmethod
    def of(cls, x: Tensor, **facts: Any) -> "SequenceContext":
        """Make the context of hidden states x `[B, T, D]`; facts as in `__init__`. Raises: ConfigError."""
        if x.dim() != 3 or not x.shape[1]:
            raise ConfigError(f"x has shape {list(x.shape)}; expected [B, T, D] with T of at least 1.")
        return cls(x.shape[0], x.shape[1], x.device, **facts)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "SequenceContext":
        """Move this context to another device, for layers there (accelerate calls this method)."""
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
        """Offsets for the ops, checked and copied to the host once; None when each row is one document."""
        if self.cu_seqlens is None:
            return None
        offsets = Offsets.read(self.cu_seqlens)
        document_offsets(offsets, self.num_rows, self.num_tokens)
        return offsets

    @property
    def num_states(self) -> int:
        """Number of rows of a state: one per document, or one per row."""
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
    def sequence_positions(self) -> Tensor:
        """`positions` counted from the beginning of the document, wherever its ranks are, int64 `[B, T]`."""
        before = self.shard.tokens_before
        if before is None:
            return self.positions
        if self.cu_seqlens is None:
            return self.positions + before[:, None]
        return self.positions + before.repeat_interleave(self.lengths, output_size=self.num_tokens)

    @_once
    def prefix(self) -> Tensor | None:
        """Bool `[B, T]`, True at the real tokens of a prefix; None when there is no prefix."""
        if self.prefix_lengths is None:
            return None
        lengths = self.prefix_lengths.to(self.device)
        if self.cu_seqlens is not None:
            ends = lengths.repeat_interleave(self.lengths, output_size=self.num_tokens)
            return self.sequence_positions < ends
        inside = self.sequence_positions < lengths[:, None]
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
        """Context of the result of `unpack`: one document per row, padded at the right."""
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
            shard=self.shard.unpacked(),
        )

    def unpack(self, x: Tensor) -> Tensor:
        """Unpack the documents of a packed row x `[1, T, ...]`, one per row, zero at the end: `[N, longest, ...]`."""
        out = x.new_zeros(self.num_states, self._longest, *x.shape[2:])
        return out.index_put(self._places, x[0])

    def repack(self, rows: Tensor) -> Tensor:
        """Undo `unpack`: `[N, longest, ...]` -> `[1, T, ...]`."""
        return rows[self._places][None]

    @_once
    def _longest(self) -> int:
        assert self.documents is not None, "only packed rows are unpacked"
        return max(end - start for start, end in itertools.pairwise(self.documents.host))

    @_once
    def _places(self) -> tuple[Tensor, Tensor]:
        """Row and column of each token of the packed row in `rows`."""
        documents = torch.arange(self.num_states, device=self.device)
        return documents.repeat_interleave(self.lengths, output_size=self.num_tokens), self.positions[0]
