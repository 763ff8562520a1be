"""Gated linear attention, GLA (arXiv 2312.06635): linear attention that forgets each key channel at its own pace.

    q, k = Linear(x), of half a head;  v = Linear(x);  a = sigmoid(Linear(Linear(x)) + b)^(1/16), one a key channel
    S_t = diag(a_t) S_{t-1} + k_t v_t^T;   y = Linear(RMSNorm per head (S_t^T q_t / sqrt(K)) * silu(Linear(x)))

As published: keys half as wide as values, a decay of rank 16, an output gate, no convolution. (With K = V / 2 the
four large projections and the gate together hold as many parameters as softmax attention's four.)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from longlode.mixers.base import Mixer, MixerSettings, State, refuse_padded_packing, zero_padding
from longlode.mixers.linear_attention import attend
from longlode.mixers.norm import RMSNorm, at_least_float32

_DECAY_RANK = 16
# The root that starts decays near one: sigmoid(0)^(1/16) = 0.96 a token.
_DECAY_ROOT = 16


class GatedLinearAttention(Mixer):
    """Letter C: linear attention with a data-dependent decay per key channel (arXiv 2312.06635)."""

    letter = "C"
    layer_type = "linear_attention"

    def __init__(self, settings: MixerSettings) -> None:
        """Five projections, the two thin ones of the decay (its second has a bias), a norm."""
        super().__init__(settings)
        dim, inner = settings.hidden_size, settings.num_heads * settings.head_dim
        inner_k = inner // 2
        self.q_proj = nn.Linear(dim, inner_k, bias=False)
        self.k_proj = nn.Linear(dim, inner_k, bias=False)
        self.v_proj = nn.Linear(dim, inner, bias=False)
        self.g_proj = nn.Linear(dim, inner, bias=False)
        self.gk_proj = nn.Sequential(nn.Linear(dim, _DECAY_RANK, bias=False), nn.Linear(_DECAY_RANK, inner_k))
        self.o_norm = RMSNorm(settings.head_dim, settings.norm_eps)
        self.o_proj = nn.Linear(inner, dim, bias=False)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        cu_seqlens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """See `Mixer.forward`. State: memory `[N, H, K, V]` with K = V / 2."""
        refuse_padded_packing(cu_seqlens, mask)
        x = zero_padding(x, mask)
        shape = (*x.shape[:2], self.settings.num_heads, -1)
        q, k, v = (proj(x).view(shape) for proj in (self.q_proj, self.k_proj, self.v_proj))
        g = functional.logsigmoid(at_least_float32(self.gk_proj(x))).view(shape) / _DECAY_ROOT
        if mask is not None:
            # Keys are 0 there already: nothing is written, and nothing may fade.
            g = g * mask[..., None, None]
        o, memory = attend(q, k, v, (state or {}).get("memory"), cu_seqlens, g=g)
        o = self.o_norm(o) * functional.silu(self.g_proj(x).view(shape))
        return self.o_proj(o.flatten(-2)), {"memory": memory}

    @classmethod
    def count_params(cls, settings: MixerSettings) -> int:
        """See `Mixer.count_params`."""
        inner = settings.num_heads * settings.head_dim
        return cls._projection_params(settings) + inner // 2 + settings.head_dim

    @classmethod
    def count_flops_per_token(cls, settings: MixerSettings, num_tokens: int) -> float:
        """See `Mixer.count_flops_per_token`: write and read make 4 K V a head, at any length."""
        inner = settings.num_heads * settings.head_dim
        return 2 * cls._projection_params(settings) + 2 * inner * settings.head_dim

    @classmethod
    def count_state_bytes(cls, settings: MixerSettings, num_tokens: int, dtype: torch.dtype) -> int:
        """See `Mixer.count_state_bytes`: the same at every length; the memory is float32 at least."""
        itemsize = torch.promote_types(dtype, torch.float32).itemsize
        return settings.num_heads * settings.head_dim**2 // 2 * itemsize

    @classmethod
    def _projection_params(cls, settings: MixerSettings) -> int:
        inner = settings.num_heads * settings.head_dim
        thin = _DECAY_RANK * (settings.hidden_size + inner // 2)
        return 4 * settings.hidden_size * inner + thin
