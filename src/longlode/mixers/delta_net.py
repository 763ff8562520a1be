"""DeltaNet (arXiv 2406.06484) and Gated DeltaNet (arXiv 2412.06464): one layer, with and without decay.

    q, k, v = silu(conv(Linear(x)));  q, k of unit norm per head;  beta = sigmoid(Linear(x))
    o = delta_rule(q, k, v, beta, g);  y = Linear(RMSNorm per head (o))

Gated DeltaNet adds the log-decay g = -exp(A_log) * softplus(Linear(x) + dt_bias), one number a head and
token. The memory is a K x V matrix a head and the last W - 1 inputs of each
convolution, however long the text.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from longlode.mixers.base import Mixer, MixerSettings, State, refuse_padded_packing, zero_padding
from longlode.mixers.decay import decay_parameter, initial_decay
from longlode.mixers.norm import RMSNorm, at_least_float32, l2_norm
from longlode.mixers.short_conv import ShortConv
from longlode.ops.delta_rule import delta_rule, delta_rule_step


class _DeltaRuleMixer(Mixer):
    """The layer of this file; `gated` decides about the decay."""

    layer_type = "linear_attention"
    gated: ClassVar[bool]

    def __init__(self, settings: MixerSettings) -> None:
        super().__init__(settings)
        dim, inner_k = settings.hidden_size, settings.num_heads * settings.head_dim
        inner_v = settings.num_heads * settings.value_dim
        self.q_proj = nn.Linear(dim, inner_k, bias=False)
        self.k_proj = nn.Linear(dim, inner_k, bias=False)
        self.v_proj = nn.Linear(dim, inner_v, bias=False)
        self.b_proj = nn.Linear(dim, settings.num_heads, bias=False)
        self.q_conv1d = ShortConv(inner_k, settings.conv_size)
        self.k_conv1d = ShortConv(inner_k, settings.conv_size)
        self.v_conv1d = ShortConv(inner_v, settings.conv_size)
        if self.gated:
            self.a_proj = nn.Linear(dim, settings.num_heads, bias=False)
            self.A_log = decay_parameter(settings.num_heads)
            self.dt_bias = decay_parameter(settings.num_heads)
        if settings.use_output_gate:
            self.g_proj = nn.Linear(dim, inner_v, bias=False)
        self.o_norm = RMSNorm(settings.value_dim, settings.norm_eps)
        self.o_proj = nn.Linear(inner_v, dim, bias=False)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        cu_seqlens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """See `Mixer.forward`.

        State: conv_q, conv_k `[N, H K, W - 1]`, conv_v `[N, H V, W - 1]`, memory `[N, H, K, V]`.
        """
        refuse_padded_packing(cu_seqlens, mask)
        before: State = state or {}
        # Padding must be zero before the convolution, or it reaches the first real tokens through it.
        x = zero_padding(x, mask)
        q, conv_q = self.q_conv1d(self.q_proj(x), before.get("conv_q"), cu_seqlens, mask)
        k, conv_k = self.k_conv1d(self.k_proj(x), before.get("conv_k"), cu_seqlens, mask)
        v, conv_v = self.v_conv1d(self.v_proj(x), before.get("conv_v"), cu_seqlens, mask)
        shape = (*x.shape[:2], self.settings.num_heads, -1)
        q, k, v = l2_norm(q.view(shape)), l2_norm(k.view(shape)), v.view(shape)
        beta, g = self._strength_and_decay(x, mask)
        memory = before.get("memory")
        if x.shape[1] == 1 and memory is not None and cu_seqlens is None:
            g_t = None if g is None else g[:, 0]
            o_t, memory = delta_rule_step(q[:, 0], k[:, 0], v[:, 0], beta[:, 0], g=g_t, state=memory)
            o = o_t[:, None]
        else:
            o, memory = delta_rule(q, k, v, beta, g=g, state=memory, cu_seqlens=cu_seqlens)
        o = self.o_norm(o)
        if self.settings.use_output_gate:
            o = o * functional.silu(self.g_proj(x).view(shape))
        after = {"conv_q": conv_q, "conv_k": conv_k, "conv_v": conv_v, "memory": memory}
        return self.o_proj(o.flatten(-2)), after

    def _strength_and_decay(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return beta and the log-decay g (or None), both `[B, T, H]`, 0 at padding: memory untouched."""
        beta = at_least_float32(self.b_proj(x)).sigmoid()
        if self.settings.allow_neg_eigval:
            beta = 2 * beta
        g = None
        if self.gated:
            step = functional.softplus(at_least_float32(self.a_proj(x)) + self.dt_bias)
            g = -self.A_log.to(step.dtype).exp() * step
        if mask is not None:
            beta = beta * mask[..., None]
            g = g * mask[..., None] if g is not None else None
        return beta, g

    def initial_values(self) -> dict[str, Tensor]:
        """Decays as Mamba-2 draws them."""
        return initial_decay(self.A_log, self.dt_bias) if self.gated else {}

    @classmethod
    def count_params(cls, settings: MixerSettings) -> int:
        """See `Mixer.count_params`."""
        convs, decay = cls._conv_channels(settings) * settings.conv_size, 2 * settings.num_heads
        return cls._projection_params(settings) + convs + settings.value_dim + (decay if cls.gated else 0)

    @classmethod
    def count_flops_per_token(cls, settings: MixerSettings, num_tokens: int) -> float:
        """See `Mixer.count_flops_per_token`: read old, write, read make 6 K V a head, at any length."""
        conv = 2 * cls._conv_channels(settings) * settings.conv_size
        memory = settings.num_heads * settings.head_dim * settings.value_dim
        return 2 * cls._projection_params(settings) + conv + 6 * memory

    @classmethod
    def count_state_bytes(cls, settings: MixerSettings, num_tokens: int, dtype: torch.dtype) -> int:
        """See `Mixer.count_state_bytes`: the same at every length; the memory is float32 at least."""
        memory_dtype = torch.promote_types(dtype, torch.float32)
        conv = cls._conv_channels(settings) * (settings.conv_size - 1) * dtype.itemsize
        memory = settings.num_heads * settings.head_dim * settings.value_dim
        return conv + memory * memory_dtype.itemsize

    @classmethod
    def _projection_params(cls, settings: MixerSettings) -> int:
        num_values, narrow = 3 if settings.use_output_gate else 2, 2 if cls.gated else 1
        wide = 2 * settings.head_dim + num_values * settings.value_dim
        return settings.hidden_size * settings.num_heads * (wide + narrow)

    @staticmethod
    def _conv_channels(settings: MixerSettings) -> int:
        return settings.num_heads * (2 * settings.head_dim + settings.value_dim)


class DeltaNet(_DeltaRuleMixer):
    """Letter D: the delta rule without decay (arXiv 2406.06484)."""

    letter = "D"
    gated = False


class GatedDeltaNet(_DeltaRuleMixer):
    """Letter G: the delta rule with a data-dependent decay (arXiv 2412.06464)."""

    letter = "G"
    gated = True
    float32_parameters = ("A_log", "dt_bias")
