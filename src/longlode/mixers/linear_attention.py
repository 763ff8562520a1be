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
from longlode.mixers.segment_map import SegmentMap
from longlode.ops.linear_attention import linear_attention, linear_attention_step
from longlode.ops.packed import Offsets


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    memory: Tensor | None,
    context: SequenceContext,
    *,
    g: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Apply `linear_attention` to a piece, or its single step to a piece of one token.

    It continues from `memory`, or on several ranks from the state after the parts before this one.
    """
    if memory is None and not context.keeps_state and context.shard.exchanges_heads:

        def run(offsets: Offsets | None, *heads: Tensor) -> Tensor:
            return linear_attention(*heads[:3], g=heads[3], scale=scale, cu_seqlens=offsets)[0]

        o = context.shard.by_heads(run, q, k, v, g)
        return o, o.new_empty(0)
    memory = context.shard.fold(lambda: additive_map(k, v, context, g=g), memory)
    return recur(q, k, v, memory, context, g=g, scale=scale)


def recur(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    memory: Tensor | None,
    context: SequenceContext,
    *,
    g: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Apply `attend` from `memory` itself, which the caller has already received from the parts before this one."""
    if q.shape[1] == 1 and memory is not None and context.cu_seqlens is None:
        g_t = None if g is None else g[:, 0]
        o_t, memory = linear_attention_step(q[:, 0], k[:, 0], v[:, 0], g=g_t, scale=scale, state=memory)
        return o_t[:, None], memory
    return linear_attention(q, k, v, g=g, scale=scale, state=memory, cu_seqlens=context.documents)


def additive_map(k: Tensor, v: Tensor, context: SequenceContext, *, g: Tensor | None = None) -> SegmentMap:
    """Compute the map of a piece that writes v under k: it decays the state by g, and adds its own sum.

    Args: k `[B, T, H, K]`; v `[B, T, H, V]`; g `[B, T, H]` or `[B, T, H, K]`, or None.
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
        x = zero_padding(x, context.mask)
        q, k, v = self._heads(x)
        o, memory = attend(q, k, v, (state or {}).get("memory"), context, g=self._log_decay(x, context.mask))
        return MixerOutput(self.o_proj(self.o_norm(o).flatten(-2)), {"memory": memory})

    def segment_map(self, x: Tensor, context: SequenceContext | None = None) -> SegmentMap:
        """See `Mixer.segment_map`."""
        context = context or SequenceContext.of(x)
        x = zero_padding(x, context.mask)
        _, k, v = self._heads(x)
        return additive_map(k, v, context, g=self._log_decay(x, context.mask))

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q, k and v, each `[B, T, H, K]`."""
        shape = (*x.shape[:2], self.config.num_heads, self.config.head_dim)
        q, k = (functional.elu(proj(x).view(shape)) + 1 for proj in (self.q_proj, self.k_proj))
        return q, k, self.v_proj(x).view(shape)

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
