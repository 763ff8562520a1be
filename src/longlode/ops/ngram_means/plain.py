"""The means by torch's operations, in any dtype and on any device."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class SortedNgrams(NamedTuple):
    """All tokens of a batch `[B, S]`, sorted by the n-gram that ends at them, those of one n-gram by position."""

    order: Tensor
    """Token at each index of the sorted list, int64 `[B S]`."""
    group: Tensor
    """Number of the n-gram at each index, int64 `[B S]`; a token at which no n-gram ends is a separate group."""


def ngram_means_torch(
    values: Tensor, ngrams: Sequence[SortedNgrams], num_asked: int, matches: int | None
) -> Tensor:
    """As `ngram_means`, by torch's operations."""
    B, S = values.shape[:2]
    index = torch.arange(B * S, device=values.device).view(B, S)
    asked, flat = index[:, S - num_asked :].flatten(), values.flatten(0, 1)
    means = [_mean_after(flat, one, asked, matches) for one in ngrams]
    return torch.cat(means, dim=-1).view(B, num_asked, -1)


def _mean_after(values: Tensor, ngrams: SortedNgrams, asked: Tensor, matches: int | None) -> Tensor:
    """Average the values `[B S, D]` after earlier occurrences of the n-grams that end at tokens `asked`: `[Q, D]`."""
    order, group = ngrams
    index = torch.arange(len(order), device=order.device)
    place = torch.empty_like(order).scatter(0, order, index)[asked]
    own = group[place]
    # The last earlier occurrence; if it ends one token before, the token after it is the token itself: not a match.
    last = place - 1
    before = last.clamp(min=0)
    last = last - ((group[before] == own) & (order[before] == asked - 1)).long()
    if matches is None:
        return _mean_of_all(values, ngrams, last, own)
    total, count = values.new_zeros(len(asked), values.shape[1]), torch.zeros_like(asked)
    for at in (last - k for k in range(matches)):
        near = at.clamp(min=0)
        found = (at >= 0) & (group[near] == own)
        behind = torch.where(found, order[near] + 1, 0)
        total = total + torch.where(found[:, None], values[behind], 0)
        count = count + found
    return total / count.clamp(min=1)[:, None]


def _mean_of_all(values: Tensor, ngrams: SortedNgrams, last: Tensor, own: Tensor) -> Tensor:
    """Average over all occurrences of each n-gram `own` up to index `last`: differences of running sums."""
    first = torch.searchsorted(ngrams.group, own)
    count = (last + 1 - first).clamp(min=0)
    # The value after the very last token is never used. float32 is summed in float64, because differences of long sums
    # have the rounding errors of the sums.
    behind = torch.where(ngrams.order + 1 < len(values), ngrams.order + 1, 0)
    wide = values.double() if values.device.type != "mps" else values.float()
    sums = torch.nn.functional.pad(wide[behind].cumsum(0), (0, 0, 1, 0))
    total = torch.where((count > 0)[:, None], sums[first + count] - sums[first], 0)
    return (total / count.clamp(min=1)[:, None]).to(values.dtype)
