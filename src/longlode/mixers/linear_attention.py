"""Linear attention (arXiv 2006.16236), a plain sum over all tokens: the baseline without forgetting.

    q, k = elu(Linear(x)) + 1;  v = Linear(x);  S_t = S_{t-1} + k_t v_t^T;  y = Linear(RMSNorm per head (S_t^T q_t))

The original divides by q_t . sum_{s <= t} k_s. With elu + 1 that is one positive number per head and token,
and an RMSNorm cancels it; so the norm replaces it, as in arXiv 2210.10340, and no second state is needed.
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
from longlode.mixers.norm import RMSNorm
from longlode.mixers.overlap import GetMemory, inputs_and_memory
from longlode.mixers.segment_map import SegmentMap
from longlode.ops.linear_attention import linear_attention, linear_attention_step
from longlode.ops.packed import Offsets


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    get_memory: GetMemory | None,
    context: SequenceContext,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Apply `linear_attention` to a piece, or its single step to a piece of one token.

    get_memory: as `overlap.begin_memory` returns it.
    """
    if get_memory is None:

        def run(offsets: Offsets | None, *heads: Tensor) -> Tensor:
            return linear_attention(*heads[:3], g=heads[3], scale=scale, cu_seqlens=offsets)[0]

        o = context.shard.by_heads(run, q, k, v, g)
        return o, o.new_empty(0)
    return recur(q, k, v, g, get_memory(), context, scale=scale)


def recur(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    memory: Tensor | None,
    context: SequenceContext,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Apply `attend` from the memory itself, that before the piece."""
    if q.shape[1] == 1 and memory is not None and context.cu_seqlens is None:
        g_t = None if g is None else g[:, 0]
        o_t, memory = linear_attention_step(q[:, 0], k[:, 0], v[:, 0], g=g_t, scale=scale, state=memory)
        return o_t[:, None], memory
    return linear_attention(q, k, v, g=g, scale=scale, state=memory, cu_seqlens=context.documents)


def additive_map(k: Tensor, v: Tensor, g: Tensor | None, context: SequenceContext) -> SegmentMap:
    """Compute the map of a piece that writes v under k: it decays the state by g, and adds its own sum.

    Args: k `[B, T, H, K]`; v `[B, T, H, V]`; g `[B, T, H]` or `[B, T, H, K]`, or None for no decay.
    """
    _, added = linear_attention(k, k, v, g=g, cu_seqlens=context.documents)
    if g is None:
        return SegmentMap(added)
    per_channel = g if g.dim() == 4 else g[..., None]
    if context.cu_seqlens is None:
        return SegmentMap(added, log_decay=per_channel.sum(1))
    # One sum per document: differences of a running total, which starts at 0, between the offsets.
    running = functional.pad(per_channel[0].cumsum(0), (0, 0, 0, 0, 1, 0))
    return SegmentMap(added, log_decay=running[context.cu_seqlens.long()].diff(dim=0))


@dataclass(frozen=True, kw_only=True)
class LinearAttentionConfig(HeadsConfig):
    """Linear attention without decay (arXiv 2006.16236)."""

    name = "linear_attention"

    norm_eps: float = setting("Added to the mean square in RMSNorm.", 1e-6, shared="norm_eps")

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> "Mixer":
        """See `MixerConfig.build`."""
        return LinearAttention(self, hidden_size)


class LinearAttention(Mixer):
    """Linear attention without decay (arXiv 2006.16236)."""

    traits = MixerTraits(shards="map", twice_differentiable=True)

    def __init__(self, config: LinearAttentionConfig, hidden_size: int) -> None:
        """Four projections and a norm; no convolution, no gate, as published."""
        super().__init__()
        self.config = config
        inner = config.num_heads * config.head_dim
        self.q_proj = nn.Linear(hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(hidden_size, inner, bias=False)
        self.v_proj = nn.Linear(hidden_size, inner, bias=False)
        self.o_norm = RMSNorm(config.head_dim, config.norm_eps)
        self.o_proj = nn.Linear(inner, hidden_size, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`. State: memory `[N, H, K, V]`. At padding v is 0, so nothing is written."""
        context = context or SequenceContext.of(x)
        return self._mix(zero_padding(x, context.mask), (state or {}).get("memory"), context)

    def segment_map(self, x: Tensor, context: SequenceContext | None = None) -> SegmentMap:
        """See `Mixer.segment_map`."""
        context = context or SequenceContext.of(x)
        return additive_map(*self._writes(zero_padding(x, context.mask), context.mask), context)

    def _mix(self, x: Tensor, memory: Tensor | None, context: SequenceContext) -> MixerOutput:
        """Mix x, zero at padding, from a memory before the sequence."""
        q, (k, v, g), get_memory = inputs_and_memory(
            lambda: self._features(self.q_proj(x)),
            lambda: self._writes(x, context.mask),
            lambda writes: additive_map(*writes, context),
            memory,
            context,
        )
        o, memory = attend(q, k, v, g, get_memory, context)
        return MixerOutput(self.o_proj(self.o_norm(o).flatten(-2)), {"memory": memory})

    def _writes(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """k and v, both `[B, T, H, K]`, and the log-decay."""
        k, v = self._features(self.k_proj(x)), self.v_proj(x).unflatten(-1, (self.config.num_heads, -1))
        return k, v, self._log_decay(x, mask)

    def _features(self, u: Tensor) -> Tensor:
        """Positive features `[B, T, H, K]` of u `[B, T, H K]`."""
        return functional.elu(u.unflatten(-1, (self.config.num_heads, -1))) + 1

    def _log_decay(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
        """Compute the log-decay of the memory at each token, `[B, T, H]`, 0 at padding; None: no decay."""
        return None

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: write and read make 4 K V per head, at any length."""
        return 4 * self.config.num_heads * self.config.head_dim**2

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: the same at every length; the memory is float32 at least."""
        shape = (1, self.config.num_heads, self.config.head_dim, self.config.head_dim)
        return empty_state(torch.promote_types(dtype, torch.float32), memory=shape)
