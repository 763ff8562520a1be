"""The mixer of LAWCAT (arXiv 2509.18467): causal convolutions of queries and keys, normalised gated linear attention.

    q, k = elu(silu(conv(Linear(x)))) + 1;   v = Linear(x);   a = sigmoid(Linear(Linear(x)) + b)^(1/16) per key channel
    S_t = diag(a_t) S_{t-1} + k_t v_t^T;   z_t = a_t z_{t-1} + k_t;   y = Linear(S_t^T q_t / (z_t . q_t))

With the normaliser every output is a weighted mean of values, as in softmax attention, at any length; so it can take a
trained attention layer's place, whose projections have the same shapes. The convolutions replace the sharp attention to
near tokens that a positive feature map lacks. z is the last column of S, that of a value which is always 1.

From the paper's public summaries (its code was not compared): depthwise causal convolutions of q and k alone (width 4)
before the feature map, the gate, the normaliser. Ours, where they do not say: silu in the convolution, the feature map
elu + 1 and the low-rank decay of GLA (arXiv 2312.06635), no norm and no gate on the output; no rotary positions, which
it makes optional.
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
from longlode.mixers.gated_linear_attention import DECAY_RANK, log_decay
from longlode.mixers.linear_attention import additive_map, attend
from longlode.mixers.overlap import inputs_and_memory
from longlode.mixers.segment_map import SegmentMap
from longlode.mixers.short_conv import ShortConv


@dataclass(frozen=True, kw_only=True)
class ConvGLAConfig(HeadsConfig):
    """Convolutions and normalised gated linear attention (arXiv 2509.18467)."""

    name = "conv_gla"

    conv_size: int = setting("W, tokens that the short convolutions see.", 4, least=2, shared="conv_size")

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> Mixer:
        """See `MixerConfig.build`."""
        return ConvGLA(self, hidden_size)


class ConvGLA(Mixer):
    """The mixer described at the top of this file."""

    traits = MixerTraits(shards="map", twice_differentiable=True)

    def __init__(self, config: ConvGLAConfig, hidden_size: int) -> None:
        """Four projections as those of attention, two convolutions, the two thin projections of the decay."""
        super().__init__()
        self.config = config
        inner = config.num_heads * config.head_dim
        self.q_proj = nn.Linear(hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(hidden_size, inner, bias=False)
        self.v_proj = nn.Linear(hidden_size, inner, bias=False)
        self.q_conv1d = ShortConv(inner, config.conv_size)
        self.k_conv1d = ShortConv(inner, config.conv_size)
        self.gk_proj = nn.Sequential(
            nn.Linear(hidden_size, DECAY_RANK, bias=False), nn.Linear(DECAY_RANK, inner)
        )
        self.o_proj = nn.Linear(inner, hidden_size, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`. State: conv_q, conv_k `[N, H K, W - 1]`, memory `[N, H, K, V + 1]`."""
        context, before = context or SequenceContext.of(x), state or {}
        # Padding must be zero before the convolution, or the convolution spreads it to the first real tokens.
        x = zero_padding(x, context.mask)
        (q, conv_q), (writes, conv_k), get_memory = inputs_and_memory(
            lambda: self.q_conv1d(self.q_proj(x), before.get("conv_q"), context),
            lambda: self._writes(x, before, context),
            lambda written: additive_map(*written[0], context),
            before.get("memory"),
            context,
        )
        o, memory = attend(self._features(q), *writes, get_memory, context)
        mean, total = o.split([self.config.head_dim, 1], dim=-1)
        # Before the first real token the sums are 0.
        y = self.o_proj((mean / torch.where(total > 0, total, 1.0)).flatten(-2))
        return MixerOutput(y, {"conv_q": conv_q, "conv_k": conv_k, "memory": memory})

    def segment_map(self, x: Tensor, context: SequenceContext | None = None) -> SegmentMap:
        """See `Mixer.segment_map`; the convolution starts from `context.shard`'s inputs before the piece."""
        context = context or SequenceContext.of(x)
        writes, _ = self._writes(zero_padding(x, context.mask), {}, context)
        return additive_map(*writes, context)

    def _features(self, u: Tensor) -> Tensor:
        """Positive features `[B, T, H, K]` of u `[B, T, H K]`."""
        return functional.elu(u.unflatten(-1, (self.config.num_heads, -1))) + 1

    def _writes(
        self, x: Tensor, before: State, context: SequenceContext
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """(k, v, g), k and g `[B, T, H, K]`, v `[B, T, H, V + 1]`, and the state of the convolution.

        At padding v and g are 0.
        """
        k, conv_k = self.k_conv1d(self.k_proj(x), before.get("conv_k"), context)
        v = self.v_proj(x).unflatten(-1, (self.config.num_heads, -1))
        one = v.new_ones(*x.shape[:2], 1, 1)
        if context.mask is not None:
            one = one * context.mask[..., None, None]
        v = torch.cat((v, one.expand(*v.shape[:3], 1)), dim=-1)
        g = log_decay(self.gk_proj(x), self.config.num_heads, context.mask)
        return (self._features(k), v, g), conv_k

    def initial_values(self) -> dict[str, Tensor]:
        """Convolutions that keep the size of their input."""
        return {f"{name}.weight": getattr(self, name).uniform_values() for name in ("q_conv1d", "k_conv1d")}

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: write and read make 4 K (V + 1) per head, at any length."""
        return 4 * self.config.num_heads * self.config.head_dim * (self.config.head_dim + 1)

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: the same at every length; the memory is float32 at least."""
        heads, K, kept = self.config.num_heads, self.config.head_dim, self.config.conv_size - 1
        convs = empty_state(dtype, conv_q=(1, heads * K, kept), conv_k=(1, heads * K, kept))
        return convs | empty_state(torch.promote_types(dtype, torch.float32), memory=(1, heads, K, K + 1))
