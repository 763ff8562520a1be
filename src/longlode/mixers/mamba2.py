"""Mamba-2, the state space dual form (arXiv 2405.21060): linear attention with one data-dependent decay per head.

    x', [B C] = silu(conv(Linear(x)));  dt = softplus(Linear(x) + dt_bias), one per head
    S_t = exp(-exp(A_log) dt_t) S_{t-1} + B_t (dt_t x'_t)^T;   o_t = S_t^T C_t + skip * x'_t
    y = Linear(RMSNorm(o * silu(Linear(x))))

In the names of the op: C is q, B is k, dt x' is v. B and C are shared by all heads (one group), as in the
paper's models. The state of a head is K x V like that of a D layer; the paper's expansion of the inner width
by two is num_heads * head_dim = 2 * hidden_size.
"""

from dataclasses import dataclass
from typing import NamedTuple

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
from longlode.mixers.decay import decay_parameter, initial_decay
from longlode.mixers.forgetting import PLAIN, Forgetting
from longlode.mixers.linear_attention import additive_map, attend
from longlode.mixers.norm import RMSNorm, at_least_float32
from longlode.mixers.overlap import begin_memory
from longlode.mixers.segment_map import SegmentMap
from longlode.mixers.short_conv import ShortConv


@dataclass(frozen=True, kw_only=True)
class Mamba2Config(HeadsConfig):
    """The mixer of Mamba-2 (arXiv 2405.21060)."""

    name = "mamba2"

    conv_size: int = setting("W, tokens that the short convolutions see.", 4, least=2, shared="conv_size")
    norm_eps: float = setting("Added to the mean square in RMSNorm.", 1e-6, shared="norm_eps")

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> "Mixer":
        """See `MixerConfig.build`."""
        return Mamba2(self, hidden_size)


class _Inputs(NamedTuple):
    """heads x', and q, k, v of the op, all `[B, T, H, K]`; g `[B, T, H]`."""

    heads: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor


class Mamba2(Mixer):
    """The mixer of Mamba-2 (arXiv 2405.21060)."""

    traits = MixerTraits(shards="map", twice_differentiable=True)
    float32_parameters = ("A_log", "dt_bias")
    kept_parameters = ("skip",)
    forgetting: Forgetting = PLAIN

    def __init__(self, config: Mamba2Config, hidden_size: int) -> None:
        """The projections of x', its gate z, B and C together, dt; two convolutions; a norm over all heads."""
        super().__init__()
        self.config = config
        dim, inner = hidden_size, config.num_heads * config.head_dim
        self.x_proj = nn.Linear(dim, inner, bias=False)
        self.z_proj = nn.Linear(dim, inner, bias=False)
        self.bc_proj = nn.Linear(dim, 2 * config.head_dim, bias=False)
        self.dt_proj = nn.Linear(dim, config.num_heads, bias=False)
        self.x_conv1d = ShortConv(inner, config.conv_size)
        self.bc_conv1d = ShortConv(2 * config.head_dim, config.conv_size)
        self.A_log = decay_parameter(config.num_heads)
        self.dt_bias = decay_parameter(config.num_heads)
        self.skip = nn.Parameter(torch.empty(config.num_heads))
        self.o_norm = RMSNorm(inner, config.norm_eps)
        self.o_proj = nn.Linear(inner, dim, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`. State: conv_x `[N, H V, W - 1]`, conv_bc `[N, 2 K, W - 1]`, memory `[N, H, K, V]`."""
        context, before = context or SequenceContext.of(x), state or {}
        # Padding must be zero before the convolution, or the convolution spreads it to the first real tokens.
        x = zero_padding(x, context.mask)
        (heads, q, k, v, g), convs = self._inputs(x, before, context)
        get_memory = begin_memory(before.get("memory"), lambda: additive_map(k, v, g, context), context)
        skipped, gate = self.skip[:, None].to(x.dtype) * heads, functional.silu(self.z_proj(x))
        o, memory = attend(q, k, v, g, get_memory, context, scale=1.0)
        y = self.o_proj(self.o_norm((o + skipped).flatten(-2) * gate))
        return MixerOutput(y, {**convs, "memory": memory})

    def segment_map(self, x: Tensor, context: SequenceContext | None = None) -> SegmentMap:
        """See `Mixer.segment_map`; the convolutions start from `context.shard`'s inputs before the piece."""
        context = context or SequenceContext.of(x)
        inputs, _ = self._inputs(zero_padding(x, context.mask), {}, context)
        return additive_map(inputs.k, inputs.v, inputs.g, context)

    def _inputs(self, x: Tensor, before: State, context: SequenceContext) -> tuple[_Inputs, State]:
        """Compute the inputs of the op, and the state of the two convolutions."""
        inner, conv_x = self.x_conv1d(self.x_proj(x), before.get("conv_x"), context)
        bc, conv_bc = self.bc_conv1d(self.bc_proj(x), before.get("conv_bc"), context)
        heads = inner.unflatten(-1, (self.config.num_heads, -1))
        k, q = (u[:, :, None].expand_as(heads) for u in bc.chunk(2, dim=-1))
        dt = functional.softplus(at_least_float32(self.dt_proj(x)) + self.dt_bias)
        if context.mask is not None:
            dt = dt * context.mask[..., None]
        g = self.forgetting.decayed(-self.A_log.to(dt.dtype).exp() * dt, context.mask)
        v = (self.forgetting.written(dt)[..., None] * heads).to(heads.dtype)
        return _Inputs(heads, q, k, v, g), {"conv_x": conv_x, "conv_bc": conv_bc}

    def initial_values(self) -> dict[str, Tensor]:
        """Decays and convolutions as the paper's models draw them, a skip of one."""
        convs = {f"{name}.weight": getattr(self, name).uniform_values() for name in ("x_conv1d", "bc_conv1d")}
        return {**initial_decay(self.A_log, self.dt_bias), "skip": torch.ones_like(self.skip), **convs}

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: write and read make 4 K V per head, at any length."""
        return 4 * self.config.num_heads * self.config.head_dim**2

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: the same at every length; the memory is float32 at least."""
        heads, K, kept = self.config.num_heads, self.config.head_dim, self.config.conv_size - 1
        convs = empty_state(dtype, conv_x=(1, heads * K, kept), conv_bc=(1, 2 * K, kept))
        return convs | empty_state(torch.promote_types(dtype, torch.float32), memory=(1, heads, K, K))
