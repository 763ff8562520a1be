"""One document per row, left-aligned: the form of input for mixers with blocks, windows and lists.

Packed documents and padding in front then need no special treatment, and a row's state is a buffer with its own number
of entries, independent of other rows.
"""

import torch
from torch import Tensor

from longlode.mixers.context import SequenceContext
from longlode.mixers.growing import append


class DocumentRows:
    """The real tokens of a piece `[B, T, ...]` as rows `[N, L, ...]`, one document in each, padded at the right.

    Attributes:
      context: that of the rows; its mask is None when all of them are full.
      lengths: real tokens of each row, int64 `[N]`.
      real: bool `[N, L]`, True at real tokens.
    """

    def __init__(self, context: SequenceContext) -> None:
        """Compute the rows of a piece of this context."""
        self._outer, self._first = context, None
        self.context = context if context.cu_seqlens is None else context.rows
        self.lengths = context.lengths
        mask = self.context.mask
        if mask is None:
            self.real = torch.ones(
                context.num_rows, context.num_tokens, dtype=torch.bool, device=context.device
            )
            return
        if context.cu_seqlens is None:
            self._first = mask.long().argmax(1)
            mask = torch.arange(context.num_tokens, device=context.device) < self.lengths[:, None]
            self.context = SequenceContext(
                context.num_rows,
                context.num_tokens,
                context.device,
                mask=mask,
                keeps_state=context.keeps_state,
                wants_weights=context.wants_weights,
            )
        self.real = mask

    def take(self, x: Tensor) -> Tensor:
        """Return the rows of x `[B, T, D]`, 0 after the last real token."""
        if self._outer.cu_seqlens is not None:
            return self._outer.unpack(x)
        if self._first is None:
            return x
        index = torch.arange(x.shape[1], device=x.device) + self._first[:, None]
        return pick(x, index.clamp(max=x.shape[1] - 1)).masked_fill(~self.real[..., None], 0)

    def put(self, y: Tensor) -> Tensor:
        """Undo `take`, for y `[N, L, D]`; at padding the result is arbitrary but finite."""
        if self._outer.cu_seqlens is not None:
            return self._outer.repack(y)
        if self._first is None:
            return y
        index = torch.arange(y.shape[1], device=y.device) - self._first[:, None]
        return pick(y, index.clamp(min=0))


def pick(x: Tensor, index: Tensor) -> Tensor:
    """Gather entries `index` `[N, I]` of every row of x `[N, J, ...]`: `[N, I, ...]`."""
    return x[torch.arange(x.shape[0], device=x.device)[:, None], index]


def zero_where(x: Tensor, empty: Tensor) -> Tensor:
    """Set x `[N, I, ...]` to 0 where empty `[N, I]`."""
    return x.masked_fill(empty.view(*empty.shape, *[1] * (x.dim() - 2)), 0)


def last_entries(x: Tensor, end: Tensor, size: int) -> Tensor:
    """Return the `size` entries before the `end`-th `[N]` of every row of x `[N, J, ...]`; 0 before the first."""
    index = end[:, None] - size + torch.arange(size, device=x.device)
    return zero_where(pick(x, index.clamp(min=0)), index < 0)


def append_entries(old: Tensor, num_old: Tensor, new: Tensor, num_new: Tensor) -> Tensor:
    """Join the first `num_old` `[N]` entries of old `[N, J, ...]`, then the first `num_new` of new; 0 at the end."""
    if bool((num_old == old.shape[1]).all() & (num_new == new.shape[1]).all()):
        return append(old, new)
    total = num_old + num_new
    index = torch.arange(int(total.max()), device=old.device).expand(len(total), -1)
    from_new = old.shape[1] + index - num_old[:, None]
    source = torch.where(index < num_old[:, None], index, from_new)
    both = torch.cat((old, new), dim=1)
    return zero_where(pick(both, source.clamp(0, max(both.shape[1] - 1, 0))), index >= total[:, None])
