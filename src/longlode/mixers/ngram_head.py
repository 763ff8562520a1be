"""The n-gram head of in-context language learning (arXiv 2401.12973): means over earlier matches of the last n tokens.

    y_t = W_0 h_t  +  sum over n of W_n m_t^n
    m_t^n = mean of h_s over s < t for which the n tokens before s are the n tokens that end at t; 0 if there is none

h_s is the hidden state of the token after the match, so one linear map can copy it: a model need not first learn to
compare. Matching itself has no parameters; gradients reach h_s through the mean.
As published where `matches` is none. What differs: several n share one layer, not a layer each; and the
mean may be over only the `matches` most recent matches, at the same cost for any length, which follows a changing text.

n-grams are compared exactly. Those of a text are numbered by sorting, one sort per n, so time is T log T and memory
linear in T; those of the few tokens of a step are compared with every n-gram before them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from longlode.core.errors import ConfigError
from longlode.mixers.base import (
    Mixer,
    MixerConfig,
    MixerOutput,
    MixerTraits,
    State,
    empty_state,
    setting,
    zero_padding,
)
from longlode.mixers.context import SequenceContext
from longlode.mixers.growing import append

_LARGEST_N = 64
_FEW = 8
"""Up to so many new tokens after a state are compared with every token before: dearer from about 30 on."""


@dataclass(frozen=True, kw_only=True)
class NgramHeadConfig(MixerConfig):
    """Hidden states that followed the last n tokens wherever they stood before (arXiv 2401.12973)."""

    name = "ngram_head"
    layer_type = "full_attention"

    ngrams: str = setting('The values of n (tokens), ascending, apart by spaces, e.g. "1 2 3".', "1 2 3")
    matches: int | None = setting("Most recent matches that the mean is of; none: all.", None, least=1)

    def __post_init__(self) -> None:
        """See `MixerConfig`; n are different whole numbers from 1 to 64, ascending."""
        super().__post_init__()
        parts = self.ngrams.split()
        sizes = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 4]
        if (
            not sizes
            or len(sizes) < len(parts)
            or sizes != sorted(set(sizes))
            or not 1 <= sizes[0] <= sizes[-1] <= _LARGEST_N
        ):
            raise ConfigError(
                f"ngrams is {self.ngrams!r}; expected different numbers from 1 to {_LARGEST_N}, ascending, apart by "
                f'spaces, e.g. "1 2 3" ({self.name}).'
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """The values of n."""
        return tuple(int(part) for part in self.ngrams.split())

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> Mixer:
        """See `MixerConfig.build`."""
        return NgramHead(self, hidden_size)


class NgramHead(Mixer):
    """The mixer described at the top of this file. It needs `SequenceContext.token_ids`."""

    traits = MixerTraits(
        constant_state=False, shards="gather", twice_differentiable=True, reads_token_ids=True
    )

    def __init__(self, config: NgramHeadConfig, hidden_size: int) -> None:
        """A linear map of the token itself, and one per n of what followed its matches."""
        super().__init__()
        self.config = config
        self.own_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.match_proj = nn.Linear(len(config.sizes) * hidden_size, hidden_size, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`.

        State: token_ids `[N, tokens]` and x `[N, tokens, D]`, all so far; mask `[N, tokens]` once there has been
        padding, which is in front. Raises: ConfigError without token ids.
        """
        context = context or SequenceContext.of(x)
        if context.token_ids is None:
            raise ConfigError(
                "ngram_head compares token ids, and got none; give the model input_ids, not inputs_embeds "
                "(to a mixer by itself: SequenceContext.of(x, token_ids=...))."
            )
        if context.cu_seqlens is not None and (state or context.keeps_state):
            output = self(context.unpack(x), state, context.rows)
            return output._replace(y=context.repack(output.y))
        x = zero_padding(x, context.mask)
        ids, values = context.shard.gather(context.token_ids, x)
        mask = context.shard.gathered_mask(context.mask)
        if state:
            mask = _joined_mask(state, mask, ids)
            ids, values = append(state["token_ids"], ids), append(state["x"], values)
        found = self._retrieve(ids, values, mask, context)
        y = self.own_proj(x) + self.match_proj(found.to(x.dtype))
        if not context.keeps_state:
            return MixerOutput(y, {})
        # The first state may not be the caller's own tensors.
        kept = (ids, values) if state else (ids.clone(), values.clone())
        return MixerOutput(y, _kept(*kept, mask))

    def _retrieve(self, ids: Tensor, values: Tensor, mask: Tensor | None, context: SequenceContext) -> Tensor:
        """m `[B, T, len(sizes) D]` of the last T tokens, of ids `[B, S]`, values `[B, S, D]`, real where mask says."""
        rows, positions = _documents(ids, mask, context)
        if context.num_tokens <= min(_FEW, ids.shape[1] - 1) and context.cu_seqlens is None:
            matched = _compared_ngrams(ids, positions, context.num_tokens, self.config.sizes)
            return torch.cat([_mean_behind(values, each, self.config.matches) for each in matched], dim=-1)
        index = torch.arange(ids.numel(), device=ids.device).view_as(ids)
        asked = index[:, ids.shape[1] - context.num_tokens :].flatten()
        flat = values.flatten(0, 1)
        means = [
            _mean_continuation(flat, grams, asked, self.config.matches)
            for grams in _sorted_ngrams(ids, rows, positions, self.config.sizes)
        ]
        return torch.cat(means, dim=-1).view(ids.shape[0], context.num_tokens, -1)

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: the sums of the means; a running sum where they are of all matches."""
        return 2 * (self.config.matches or 1) * self.match_proj.in_features

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: every token's id and hidden state."""
        values = empty_state(dtype, x=(1, num_tokens, self.own_proj.in_features))
        return empty_state(torch.int64, token_ids=(1, num_tokens)) | values


class _Ngrams(NamedTuple):
    """All tokens of a batch, sorted by the n-gram that ends at them, those of one n-gram by position; flat, `[B S]`."""

    order: Tensor
    """Token at each index of the sorted list."""
    group: Tensor
    """Number of the n-gram at each index; a token at which no n-gram ends is a separate group."""
    place: Tensor
    """Index of each token in the sorted list: the inverse of `order`."""


def _documents(ids: Tensor, mask: Tensor | None, context: SequenceContext) -> tuple[Tensor, Tensor]:
    """Return for every token `[B, S]` the number of its document, and its position there, -1 at padding."""
    rows = torch.arange(ids.shape[0], device=ids.device)[:, None].expand_as(ids)
    if context.cu_seqlens is not None:
        # The S - T gathered tokens are the beginning of the first document.
        before = torch.arange(ids.shape[1] - context.num_tokens, device=ids.device)[None]
        document = (context.positions == 0).long().cumsum(1)
        return torch.cat((before * 0 + 1, document), 1), torch.cat((before, context.sequence_positions), 1)
    if mask is None:
        return rows, torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    return rows, (mask.long().cumsum(1) - 1).masked_fill(~mask, -1)


def _sorted_ngrams(ids: Tensor, rows: Tensor, positions: Tensor, sizes: tuple[int, ...]) -> Iterator[_Ngrams]:
    """Yield the n-grams of each size, numbered without hashing from pairs (number of the (n - 1)-gram, last token)."""
    index = torch.arange(ids.numel(), device=ids.device)
    num_ids = ids.max() + 1
    number = rows
    for n in range(1, sizes[-1] + 1):
        # The number of the (n - 1)-gram that ended one token before, and this token.
        before = number if n == 1 else torch.nn.functional.pad(number[:, :-1], (1, 0))
        key = torch.where(positions >= n - 1, before * num_ids + ids, -1 - index.view_as(ids)).flatten()
        ordered, order = key.sort(stable=True)
        group = torch.nn.functional.pad((ordered[1:] != ordered[:-1]).long().cumsum(0), (1, 0))
        number = torch.empty_like(group).scatter(0, order, group).view_as(ids)
        if n in sizes:
            yield _Ngrams(order, group, torch.empty_like(order).scatter(0, order, index))


def _compared_ngrams(ids: Tensor, positions: Tensor, num: int, sizes: tuple[int, ...]) -> Iterator[Tensor]:
    """Yield for each size n where the n-grams that end at the last `num` tokens stood before: bool `[B, num, S]`.

    ids, positions: `[B, S]`. The last occurrence ends two tokens before: the token behind it must be an earlier one.
    """
    index = torch.arange(ids.shape[1], device=ids.device)
    seen = (index < index[-num:, None] - 1).expand(len(ids), -1, -1)
    for n in range(1, sizes[-1] + 1):
        # The token n - 1 before each; the places where the roll comes around are excluded by their position.
        shifted = ids.roll(n - 1, dims=1)
        whole = positions >= n - 1
        same = (shifted[:, None] == shifted[:, -num:, None]) & whole[:, None] & whole[:, -num:, None]
        seen = seen & same
        if n in sizes:
            yield seen


def _mean_behind(values: Tensor, seen: Tensor, matches: int | None) -> Tensor:
    """Average the values `[B, S, D]` of the tokens behind the (last `matches`) places seen `[B, Q, S]`: `[B, Q, D]`."""
    if matches is not None:
        seen = seen & (seen.flip(-1).cumsum(-1).flip(-1) <= matches)
    row, query, place = seen.nonzero(as_tuple=True)
    # Summed in float64 as in `_mean_of_all`.
    wide = torch.float64 if values.device.type != "mps" else torch.float32
    total = values.new_zeros(seen.shape[0] * seen.shape[1], values.shape[2], dtype=wide)
    total = total.index_add(0, row * seen.shape[1] + query, values[row, place + 1].to(wide))
    count = seen.sum(-1).clamp(min=1)
    return (total.view(*seen.shape[:2], -1) / count[..., None]).to(values.dtype)


def _mean_continuation(values: Tensor, grams: _Ngrams, asked: Tensor, matches: int | None) -> Tensor:
    """Average the values `[B S, D]` after earlier occurrences of the n-grams that end at tokens `asked`: `[Q, D]`."""
    order, group, place = grams.order, grams.group, grams.place[asked]
    own = group[place]
    # The last earlier occurrence; if it ends one token before, the token after it is the token itself: not a match.
    last = place - 1
    before = last.clamp(min=0)
    last = last - ((group[before] == own) & (order[before] == asked - 1)).long()
    if matches is None:
        return _mean_of_all(values, grams, last, own)
    total, count = values.new_zeros(len(asked), values.shape[1]), torch.zeros_like(asked)
    for at in (last - k for k in range(matches)):
        near = at.clamp(min=0)
        found = (at >= 0) & (group[near] == own)
        behind = torch.where(found, order[near] + 1, 0)
        total = total + torch.where(found[:, None], values[behind], 0)
        count = count + found
    return total / count.clamp(min=1)[:, None]


def _mean_of_all(values: Tensor, grams: _Ngrams, last: Tensor, own: Tensor) -> Tensor:
    """Average over all occurrences of each n-gram `own` up to index `last`: differences of running sums."""
    first = torch.searchsorted(grams.group, own)
    count = (last + 1 - first).clamp(min=0)
    # The value after the very last token is never used. float32 is summed in float64, because differences of long sums
    # have the rounding errors of the sums.
    behind = torch.where(grams.order + 1 < len(values), grams.order + 1, 0)
    wide = values.double() if values.device.type != "mps" else values.float()
    sums = torch.nn.functional.pad(wide[behind].cumsum(0), (0, 0, 1, 0))
    total = torch.where((count > 0)[:, None], sums[first + count] - sums[first], 0)
    return (total / count.clamp(min=1)[:, None]).to(values.dtype)


def _joined_mask(state: State, mask: Tensor | None, ids: Tensor) -> Tensor | None:
    """Make the mask over kept and new tokens, or None while there has been no padding."""
    kept = state.get("mask")
    if kept is None and mask is None:
        return None
    kept = torch.ones_like(state["token_ids"], dtype=torch.bool) if kept is None else kept
    return torch.cat((kept, torch.ones_like(ids, dtype=torch.bool) if mask is None else mask), 1)


def _kept(ids: Tensor, values: Tensor, mask: Tensor | None) -> State:
    """Make the state after these tokens; padding moves to the front, so that the next token follows a real one."""
    if mask is None:
        return {"token_ids": ids, "x": values}
    order = mask.long().argsort(dim=1, stable=True)
    ordered = values.gather(1, order[..., None].expand_as(values))
    return {"token_ids": ids.gather(1, order), "x": ordered, "mask": mask.gather(1, order)}
