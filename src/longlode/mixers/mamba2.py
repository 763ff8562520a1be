"""Mamba-2, the state space dual form (arXiv 2405.21060): linear attention with one data-dependent decay a head.

    x', [B C] = silu(conv(Linear(x)));  dt = softplus(Linear(x) + dt_bias), one a head
    S_t = exp(-exp(A_log) dt_t) S_{t-1} + B_t (dt_t x'_t)^T;   o_t = S_t^T C_t + skip * x'_t
    y = Linear(RMSNorm(o * silu(Linear(x))))

In the letters of the op: C is q, B is k, dt x' is v. B and C are shared by all heads (one group), as in the
paper's models. The state of a head is K x V like that of a D layer; the paper's expansion of the inner width
by two is num_heads * head_dim = 2 * hidden_size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from longlode.mixers.base import Mixer, MixerSettings, State, refuse_padded_packing, zero_padding
from longlode.mixers.decay import decay_parameter, initial_decay
from longlode.mixers.linear_attention import attend
from longlode.mixers.norm import RMSNorm, at_least_float32
from longlode.mixers.short_conv import ShortConv


class Mamba2(Mixer):
    """Letter M: the mixer of Mamba-2 (arXiv 2405.21060)."""

    letter = "M"
    float32_parameters = ("A_log", "dt_bias")
    layer_type = "linear_attention"

    def __init__(self, settings: MixerSettings) -> None:
        """The projections of x', its gate z, B and C together, dt; two convolutions; a norm over all heads."""
        super().__init__(settings)
        dim, inner = settings.hidden_size, settings.num_heads * settings.head_dim
        self.x_proj = nn.Linear(dim, inner, bias=False)
        self.z_proj = nn.Linear(dim, inner, bias=False)
        self.bc_proj = nn.Linear(dim, 2 * settings.head_dim, bias=False)
        self.dt_proj = nn.Linear(dim, settings.num_heads, bias=False)
        self.x_conv1d = ShortConv(inner, settings.conv_size)
        self.bc_conv1d = ShortConv(2 * settings.head_dim, settings.conv_size)
        self.A_log = decay_parameter(settings.num_heads)
        self.dt_bias = decay_parameter(settings.num_heads)
        self.skip = nn.Parameter(torch.empty(settings.num_heads))
        self.o_norm = RMSNorm(inner, settings.norm_eps)
        self.o_proj = nn.Linear(inner, dim, bias=False)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        cu_seqlens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """See `Mixer.forward`. State: conv_x `[N, H V, W - 1]`, conv_bc `[N, 2 K, W - 1]`, memory `[N, H, K, V]`."""
        refuse_padded_packing(cu_seqlens, mask)
        before: State = state or {}
        # Padding must be zero before the convolution, or it reaches the first real tokens through it.
        x = zero_padding(x, mask)
        inner, conv_x = self.x_conv1d(self.x_proj(x), before.get("conv_x"), cu_seqlens, mask)
        bc, conv_bc = self.bc_conv1d(self.bc_proj(x), before.get("conv_bc"), cu_seqlens, mask)
        heads = inner.unflatten(-1, (self.settings.num_heads, -1))
        k, q = (u[:, :, None].expand_as(heads) for u in bc.chunk(2, dim=-1))
        dt = functional.softplus(at_least_float32(self.dt_proj(x)) + self.dt_bias)
        if mask is not None:
            dt = dt * mask[..., None]
        g, v = -self.A_log.to(dt.dtype).exp() * dt, (dt[..., None] * heads).to(x.dtype)
        o, memory = attend(q, k, v, before.get("memory"), cu_seqlens, g=g, scale=1.0)
        o = (o + self.skip[:, None].to(x.dtype) * heads).flatten(-2)
        y = self.o_proj(self.o_norm(o * functional.silu(self.z_proj(x))))
        return y, {"conv_x": conv_x, "conv_bc": conv_bc, "memory": memory}

    def initial_values(self) -> dict[str, Tensor]:
        """Decays as the paper draws them, a skip of one."""
        return {**initial_decay(self.A_log, self.dt_bias), "skip": torch.ones_like(self.skip)}

    @classmethod
    def count_params(cls, settings: MixerSettings) -> int:
        """See `Mixer.count_params`."""
        inner = settings.num_heads * settings.head_dim
        convs = settings.conv_size * (inner + 2 * settings.head_dim)
        return cls._projection_params(settings) + convs + 3 * settings.num_heads + inner

    @classmethod
    def count_flops_per_token(cls, settings: MixerSettings, num_tokens: int) -> float:
        """See `Mixer.count_flops_per_token`: write and read make 4 K V a head, at any length."""
        inner = settings.num_heads * settings.head_dim
        convs = 2 * settings.conv_size * (inner + 2 * settings.head_dim)
        return 2 * cls._projection_params(settings) + convs + 4 * inner * settings.head_dim

    @classmethod
    def count_state_bytes(cls, settings: MixerSettings, num_tokens: int, dtype: torch.dtype) -> int:
        """See `Mixer.count_state_bytes`: the same at every length; the memory is float32 at least."""
        inner = settings.num_heads * settings.head_dim
        convs = (inner + 2 * settings.head_dim) * (settings.conv_size - 1) * dtype.itemsize
        return convs + inner * settings.head_dim * torch.promote_types(dtype, torch.float32).itemsize

    @classmethod
    def _projection_params(cls, settings: MixerSettings) -> int:
        inner = settings.num_heads * settings.head_dim
        return settings.hidden_size * (3 * inner + 2 * settings.head_dim + settings.num_heads)
