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
from longlode.ops.ngram_means import SortedNgrams, ngram_means

_LARGEST_N = 64
_FEW = 8
"""Up to so many new tokens after a state are compared with every token before: sorting all is cheaper from about 30 on
(2,048 and 16,384 tokens before, one thread)."""


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
        ngrams = list(_sorted_ngrams(ids, rows, positions, self.config.sizes))
        return ngram_means(values, ngrams, context.num_tokens, self.config.matches)

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: the sums of the means; a running sum where they are of all matches."""
        return 2 * (self.config.matches or 1) * self.match_proj.in_features

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: every token's id and hidden state."""
        values = empty_state(dtype, x=(1, num_tokens, self.own_proj.in_features))
        return empty_state(torch.int64, token_ids=(1, num_tokens)) | values


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


def _sorted_ngrams(
    ids: Tensor, rows: Tensor, positions: Tensor, sizes: tuple[int, ...]
) -> Iterator[SortedNgrams]:
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
            yield SortedNgrams(order, group)


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
    # In float64, as `ngram_means` sums.
    wide = torch.float64 if values.device.type != "mps" else torch.float32
    total = values.new_zeros(seen.shape[0] * seen.shape[1], values.shape[2], dtype=wide)
    total = total.index_add(0, row * seen.shape[1] + query, values[row, place + 1].to(wide))
    count = seen.sum(-1).clamp(min=1)
    return (total.view(*seen.shape[:2], -1) / count[..., None]).to(values.dtype)


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
