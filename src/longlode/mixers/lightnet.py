"""LightNet (arXiv 2405.21022): additive instead of multiplicative recurrence, keys that are a softmax over the past.

    q = silu(Linear(x));   k, v = Linear(x);   l_t = log sum over i <= t of exp(k_i), per key channel
    S_t = sum over i <= t of exp(k_i - l_t) v_i^T = exp(l_{t-1} - l_t) S_{t-1} + exp(k_t - l_t) v_t^T
    y = Linear(RMSNorm per head (S_t^T q_t) * silu(Linear(Linear(x))))

The right-hand form is gated linear attention, whose chunks compute it. The log-sum l is stored with S in the memory, as
its last column; with it two segments compose although each was normalised by its own sum.

This is the causal one-dimensional layer, with the low-rank output gate of flash-linear-attention's. Not built: the
positions for several dimensions (MD-TPE, MD-LRPE) and the bidirectional form, which are for images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from longlode.mixers.base import (
    HeadsConfig,
    Mixer,
    MixerOutput,
    MixerTraits,
    State,
    empty_state,
    setting,
    zero_padding,
)
from longlode.mixers.context import SequenceContext
from longlode.mixers.linear_attention import recur
from longlode.mixers.norm import RMSNorm, at_least_float32
from longlode.mixers.segment_map import SegmentMap

# The log of an empty sum. Finite, so that the difference of two of them is 0 and not NaN.
_LOG_NOTHING = -1e30


@dataclass(frozen=True, kw_only=True)
class LightNetConfig(HeadsConfig):
    """Linear attention whose keys are a running softmax (arXiv 2405.21022)."""

    name = "lightnet"

    gate_rank: int = setting("Rank of the output gate.", 16, least=1)
    norm_eps: float = setting("Added to the mean square in RMSNorm.", 1e-6, shared="norm_eps")

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> Mixer:
        """See `MixerConfig.build`."""
        return LightNet(self, hidden_size)


@dataclass(frozen=True)
class LogSumMap(SegmentMap):
    """Map of a segment on memories `[N, H, K, V + 1]` whose last column is a log-sum: the mean weighted by both sums.

    S' = exp(l - l') S + exp(h - l') H;   l' = log(exp(l) + exp(h));   `added` is (H, h), of the segment alone.
    """

    def __call__(self, state: Tensor | None) -> Tensor:
        """See `SegmentMap`."""
        if state is None:
            return self.added
        total = torch.logaddexp(state[..., -1:], self.added[..., -1:])
        old, new = ((one[..., -1:] - total).exp() * one[..., :-1] for one in (state, self.added))
        return torch.cat((old + new, total), dim=-1)

    def nothing(self) -> Tensor:
        """See `SegmentMap`: the log-sum is that of no key."""
        state = torch.zeros_like(self.added)
        state[..., -1] = _LOG_NOTHING
        return state

    def then(self, after: SegmentMap) -> "LogSumMap":
        """See `SegmentMap`."""
        return LogSumMap(after(self.added))


class LightNet(Mixer):
    """The mixer described at the top of this file."""

    traits = MixerTraits(shards="map")

    def __init__(self, config: LightNetConfig, hidden_size: int) -> None:
        """Four projections, the two thin ones of the output gate, a norm."""
        super().__init__()
        self.config = config
        inner = config.num_heads * config.head_dim
        self.q_proj = nn.Linear(hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(hidden_size, inner, bias=False)
        self.v_proj = nn.Linear(hidden_size, inner, bias=False)
        self.g_proj = nn.Sequential(
            nn.Linear(hidden_size, config.gate_rank, bias=False),
            nn.Linear(config.gate_rank, inner, bias=False),
        )
        self.o_norm = RMSNorm(config.head_dim, config.norm_eps)
        self.o_proj = nn.Linear(inner, hidden_size, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`. State: memory `[N, H, K, V + 1]`, S and the log-sum l of every key channel."""
        context = context or SequenceContext.of(x)
        if context.cu_seqlens is not None:
            # The running sums restart in every document, so each gets a separate row.
            output = self(context.unpack(x), state, context.rows)
            return output._replace(y=context.repack(output.y))
        x = zero_padding(x, context.mask)
        k, v = self._keys_and_values(x, context)
        get_memory = context.shard.begin_fold(lambda: self._map(k, v, context), (state or {}).get("memory"))
        q, gate = (functional.silu(proj(x)).view_as(v) for proj in (self.q_proj, self.g_proj))
        o, memory = self._mix(q, k, v, get_memory(), context)
        return MixerOutput(self.o_proj((self.o_norm(o) * gate).flatten(-2)), {"memory": memory})

    def segment_map(self, x: Tensor, context: SequenceContext | None = None) -> SegmentMap:
        """See `Mixer.segment_map`."""
        context = context or SequenceContext.of(x)
        if context.cu_seqlens is not None:
            return self.segment_map(context.unpack(x), context.rows)
        return self._map(*self._keys_and_values(zero_padding(x, context.mask), context), context)

    def _map(self, k: Tensor, v: Tensor, context: SequenceContext) -> SegmentMap:
        return LogSumMap(self._mix(v, k, v, None, context)[1])

    def _keys_and_values(self, x: Tensor, context: SequenceContext) -> tuple[Tensor, Tensor]:
        """Logarithms of keys `[B, T, H, K]`, -inf at padding, in float32 or wider; values `[B, T, H, V]`."""
        shape = (*x.shape[:2], self.config.num_heads, -1)
        k, v = at_least_float32(self.k_proj(x)).view(shape), self.v_proj(x).view(shape)
        if context.mask is not None:
            k = k.masked_fill(~context.mask[..., None, None], -torch.inf)
        return k, v

    def _mix(
        self, q: Tensor, k: Tensor, v: Tensor, memory: Tensor | None, context: SequenceContext
    ) -> tuple[Tensor, Tensor]:
        """Reads `[B, T, H, V]`, and the memory after the piece."""
        first = k.new_full((k.shape[0], *k.shape[2:]), _LOG_NOTHING) if memory is None else memory[..., -1]
        sums = torch.cat((first[:, None], k), dim=1).logcumsumexp(1)
        old, new = sums[:, :-1], sums[:, 1:]
        keys = (k - new).exp().to(v.dtype)
        before = None if memory is None else memory[..., :-1].contiguous()
        o, after = recur(q, keys, v, old - new, before, context)
        return o, torch.cat((after, new[:, -1, ..., None]), dim=-1)

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: write and read make 4 K V per head, at any length."""
        return 4 * self.config.num_heads * self.config.head_dim**2

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: the same at every length; the memory is float32 at least."""
        heads, K = self.config.num_heads, self.config.head_dim
        return empty_state(torch.promote_types(dtype, torch.float32), memory=(1, heads, K, K + 1))
