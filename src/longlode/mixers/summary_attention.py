"""Attention over summaries of finished regions and over recent tokens in one softmax, shared by CCA and Combiner.

    A query at position p, with regions of g tokens and at least w recent tokens, sees
      the summaries of the first max(0, floor((p + 1 - w) / g)) regions, and every token after those up to itself,

so every past token counts once. A mixer defines how a region of tokens becomes one key, and at which position, and one
value; with regions of one token, each its own summary, this is full attention.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from longlode.mixers.attention import RotaryHeadsConfig, rotate
from longlode.mixers.base import Mixer, MixerOutput, MixerTraits, State, empty_state, setting
from longlode.mixers.context import SequenceContext
from longlode.mixers.document_rows import DocumentRows, append_entries, last_entries, pick
from longlode.ops.slices import Slices

# Queries computed together: their scores take the most memory.
_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class SummaryAttentionConfig(RotaryHeadsConfig):
    """Settings of attention over summaries and recent tokens."""

    region_size: int = setting("g, tokens in a region.", 16, least=1)

    @property
    def recent_tokens(self) -> int:
        """w, least number of tokens that a query sees individually, itself included."""
        return 1

    @property
    def kept_tokens(self) -> int:
        """Number of tokens in the state: those after the last summary that a query sees, or of an unfinished region."""
        return self.recent_tokens + self.region_size - 2


class Summaries(NamedTuple):
    """Keys, rotated, and values of every row's finished regions `[N, regions, H, K]`, 0 after the last."""

    k: Tensor
    v: Tensor


class Tokens(NamedTuple):
    """q, k (not rotated) and v `[N, kept + T, H, K]` of kept and new tokens; start `[N]`, position of the first new.

    farthest: the largest start, on the host.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    start: Tensor
    num_kept: int
    farthest: int

    @property
    def place(self) -> Tensor:
        """Positions `[N, kept + T]`; below 0 where nothing was kept."""
        index = torch.arange(self.k.shape[1], device=self.k.device)
        return self.start[:, None] - self.num_kept + index


class SummaryAttention(Mixer):
    """Attention over summaries and recent tokens."""

    traits = MixerTraits(constant_state=False, twice_differentiable=True)

    def __init__(self, config: SummaryAttentionConfig, hidden_size: int) -> None:
        """Projections of queries, keys, values and outputs, as in attention."""
        super().__init__()
        self.config = config
        inner = config.num_heads * config.head_dim
        self.q_proj = nn.Linear(hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(hidden_size, inner, bias=False)
        self.v_proj = nn.Linear(hidden_size, inner, bias=False)
        self.o_proj = nn.Linear(inner, hidden_size, bias=False)

    @abstractmethod
    def summarise(self, q: Tensor, k: Tensor, v: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Compute one rotated key and one value `[N, regions, H, K]` of each region.

        Args: q, k (not rotated) and v `[N, regions, tokens, H, K]`; place `[N, regions, tokens]`, positions.
        """

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`.

        State: q, k, v `[N, w + g - 2, H, K]` of the last tokens, not rotated; summary_k (rotated), summary_v
        `[N, finished regions, H, K]`; position `[N]`, real tokens read.
        """
        context, before = context or SequenceContext.of(x), state or {}
        rows = DocumentRows(context)
        x = rows.take(x)
        shape = (*x.shape[:2], self.config.num_heads, self.config.head_dim)
        new = {name: getattr(self, f"{name}_proj")(x).view(shape) for name in "qkv"}
        kept = self.config.kept_tokens
        farthest = int(before["position"].max()) if before else 0
        if not before:
            empty = new["k"].new_zeros(shape[0], 0, *shape[2:])
            recent = new["k"].new_zeros(shape[0], kept, *shape[2:])
            before = {"q": recent, "k": recent, "v": recent, "summary_k": empty, "summary_v": empty}
            before["position"] = torch.zeros_like(rows.lengths)
        joined = {name: torch.cat((before[name], new[name]), 1) for name in "qkv"}
        tokens = Tokens(**joined, start=before["position"], num_kept=kept, farthest=farthest)
        summaries = self._finish(tokens, before, rows)
        y = self.o_proj(self._attend(tokens, summaries).flatten(-2))
        after = {name: last_entries(joined[name], kept + rows.lengths, kept) for name in "qkv"}
        after |= {"summary_k": summaries.k, "summary_v": summaries.v, "position": tokens.start + rows.lengths}
        return MixerOutput(rows.put(y), after)

    def _finish(self, tokens: Tokens, before: State, rows: DocumentRows) -> Summaries:
        """Return the summaries so far: the earlier ones, and those of regions that this piece finishes."""
        g, done = self.config.region_size, tokens.start // self.config.region_size
        finished = (tokens.start + rows.lengths) // g - done
        whole = rows.context.mask is None and not tokens.farthest
        most = rows.context.num_tokens // g if whole else int(finished.max())
        first = done[:, None] + torch.arange(most, device=done.device)
        k, v = self.regions(tokens, first * g, g)
        if whole:
            return Summaries(k, v)
        return Summaries(
            append_entries(before["summary_k"], done, k, finished),
            append_entries(before["summary_v"], done, v, finished),
        )

    def regions(self, tokens: Tokens, first: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Compute rotated keys and values of regions of `size` tokens that begin at positions first `[N, R]`.

        Incomplete regions give arbitrary finite values.
        """
        place = first[..., None] + torch.arange(size, device=first.device)
        index = (place - tokens.start[:, None, None] + tokens.num_kept).clamp(0, tokens.k.shape[1] - 1)
        flat = index.flatten(1)
        q, k, v = (pick(u, flat).unflatten(1, index.shape[1:]) for u in tokens[:3])
        return self.summarise(q, k, v, place)

    def _attend(self, tokens: Tokens, summaries: Summaries) -> Tensor:
        """Compute outputs of the new tokens `[N, T, H, K]`, one block of queries at a time."""
        kept, place = tokens.num_kept, tokens.place
        k = rotate(tokens.k, place, self.config.rope_theta)
        q = rotate(tokens.q[:, kept:], place[:, kept:], self.config.rope_theta)
        g, w, outputs, farthest = (
            self.config.region_size,
            self.config.recent_tokens,
            [],
            tokens.farthest,
        )
        parts_of_q, parts_of_k, parts_of_v = Slices(q), Slices(k), Slices(tokens.v)
        past_k, past_v = Slices(summaries.k), Slices(summaries.v)
        for begin in range(0, q.shape[1], _BLOCK):
            end = min(begin + _BLOCK, q.shape[1])
            here, there = place[:, kept + begin : kept + end, None], place[:, None, begin : kept + end]
            num_regions = ((here + 1 - w) // g).clamp(min=0)
            visible = (there >= num_regions * g) & (there <= here)
            most = min(summaries.k.shape[1], max(0, (farthest + end - w) // g))
            region = torch.arange(most, device=q.device)
            mask = torch.cat(((region < num_regions), visible), dim=-1)[:, None]
            keys = torch.cat((past_k.take(0, most), parts_of_k.take(begin, kept + end)), dim=1)
            values = torch.cat((past_v.take(0, most), parts_of_v.take(begin, kept + end)), dim=1)
            heads = [u.transpose(1, 2) for u in (parts_of_q.take(begin, end), keys, values)]
            o = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=mask)
            outputs.append(o.transpose(1, 2))
        return torch.cat(outputs, dim=1)

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: 4 K per head for all that is visible on average, and for the pooling."""
        g, w = self.config.region_size, self.config.recent_tokens
        mean_regions = sum(max(0, (p + 1 - w) // g) for p in range(num_tokens)) / num_tokens
        mean_visible = (num_tokens + 1) / 2 - (g - 1) * mean_regions
        return 4 * self.config.num_heads * self.config.head_dim * (mean_visible + 1)

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: the last tokens, and a key and a value for every finished region."""
        heads = (self.config.num_heads, self.config.head_dim)
        recent = (1, self.config.kept_tokens, *heads)
        summary = (1, num_tokens // self.config.region_size, *heads)
        layout = empty_state(dtype, q=recent, k=recent, v=recent, summary_k=summary, summary_v=summary)
        return layout | empty_state(torch.int64, position=(1,))
