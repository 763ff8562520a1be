"""Gated linear attention, GLA (arXiv 2312.06635): linear attention that forgets each key channel at its own pace.

    q, k = Linear(x), of half a head;  v = Linear(x);  a = sigmoid(Linear(Linear(x)) + b)^(1/16), one per key channel
    S_t = diag(a_t) S_{t-1} + k_t v_t^T;   y = Linear(RMSNorm per head (S_t^T q_t / sqrt(K)) * silu(Linear(x)))

As published: keys half as wide as values, a decay of rank 16, an output gate, no convolution. (With K = V / 2 the
four large projections and the gate together hold as many parameters as softmax attention's four.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

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
from longlode.mixers.forgetting import PLAIN, Forgetting
from longlode.mixers.linear_attention import additive_map, attend
from longlode.mixers.norm import RMSNorm, at_least_float32
from longlode.mixers.overlap import inputs_and_memory
from longlode.mixers.segment_map import SegmentMap

DECAY_RANK = 16
"""Values that the decay of a token is made of."""
# The root that starts decays near one: sigmoid(0)^(1/16) = 0.96 per token.
_DECAY_ROOT = 16


def log_decay(logits: Tensor, num_heads: int, mask: Tensor | None) -> Tensor:
    """Log-decays `[B, T, H, K]` of logits `[B, T, H K]`, 0 at padding: nothing fades there."""
    g = functional.logsigmoid(at_least_float32(logits)).unflatten(-1, (num_heads, -1)) / _DECAY_ROOT
    return g if mask is None else g * mask[..., None, None]


@dataclass(frozen=True, kw_only=True)
class GatedLinearAttentionConfig(MixerConfig):
    """Linear attention with a data-dependent decay per key channel (arXiv 2312.06635)."""

    name = "gated_linear_attention"

    num_heads: int = setting("H, heads.", least=1, shared="num_heads")
    head_dim: int = setting("V = 2 K, width of a value.", least=2, shared="head_dim")
    norm_eps: float = setting("Added to the mean square in RMSNorm.", 1e-6, shared="norm_eps")

    def __post_init__(self) -> None:
        """See `MixerConfig`; keys are half as wide as values."""
        super().__post_init__()
        if self.head_dim % 2:
            raise ConfigError(
                f"head_dim is {self.head_dim}; gated linear attention, whose keys are half a head wide, needs an "
                "even one."
            )

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> "Mixer":
        """See `MixerConfig.build`."""
        return GatedLinearAttention(self, hidden_size)


class GatedLinearAttention(Mixer):
    """Linear attention with a data-dependent decay per key channel (arXiv 2312.06635)."""

    traits = MixerTraits(shards="map", twice_differentiable=True)
    forgetting: Forgetting = PLAIN

    def __init__(self, config: GatedLinearAttentionConfig, hidden_size: int) -> None:
        """Five projections, the two thin ones of the decay (its second has a bias), a norm."""
        super().__init__()
        self.config = config
        dim, inner = hidden_size, config.num_heads * config.head_dim
        inner_k = inner // 2
        self.q_proj = nn.Linear(dim, inner_k, bias=False)
        self.k_proj = nn.Linear(dim, inner_k, bias=False)
        self.v_proj = nn.Linear(dim, inner, bias=False)
        self.g_proj = nn.Linear(dim, inner, bias=False)
        self.gk_proj = nn.Sequential(nn.Linear(dim, DECAY_RANK, bias=False), nn.Linear(DECAY_RANK, inner_k))
        self.o_norm = RMSNorm(config.head_dim, config.norm_eps)
        self.o_proj = nn.Linear(inner, dim, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`. State: memory `[N, H, K, V]` with K = V / 2."""
        context = context or SequenceContext.of(x)
        x = zero_padding(x, context.mask)
        shape = (*x.shape[:2], self.config.num_heads, -1)
        q, (k, v, g), get_memory = inputs_and_memory(
            lambda: self.q_proj(x).view(shape),
            lambda: self._writes(x, context),
            lambda writes: additive_map(*writes, context),
            (state or {}).get("memory"),
            context,
        )
        gate = functional.silu(self.g_proj(x).view(shape))
        o, memory = attend(q, k, v, g, get_memory, context)
        return MixerOutput(self.o_proj((self.o_norm(o) * gate).flatten(-2)), {"memory": memory})

    def segment_map(self, x: Tensor, context: SequenceContext | None = None) -> SegmentMap:
        """See `Mixer.segment_map`."""
        context = context or SequenceContext.of(x)
        return additive_map(*self._writes(zero_padding(x, context.mask), context), context)

    def _writes(self, x: Tensor, context: SequenceContext) -> tuple[Tensor, Tensor, Tensor]:
        """k and the log-decay g `[B, T, H, K]`, v `[B, T, H, V]`; 0 at padding: nothing is written, nothing fades."""
        shape = (*x.shape[:2], self.config.num_heads, -1)
        k, v = self.k_proj(x).view(shape), self.v_proj(x).view(shape)
        g = log_decay(self.gk_proj(x), self.config.num_heads, context.mask)
        return self.forgetting.written(k), v, self.forgetting.decayed(g, context.mask)

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: write and read make 4 K V per head, at any length."""
        return 2 * self.config.num_heads * self.config.head_dim**2

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: the same at every length; the memory is float32 at least."""
        shape = (1, self.config.num_heads, self.config.head_dim // 2, self.config.head_dim)
        return empty_state(torch.promote_types(dtype, torch.float32), memory=shape)
