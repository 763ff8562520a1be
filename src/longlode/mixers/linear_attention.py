"""Linear attention (arXiv 2006.16236), the plain sum of what was read: the baseline that never forgets.

    q, k = elu(Linear(x)) + 1;  v = Linear(x);  S_t = S_{t-1} + k_t v_t^T;  y = Linear(RMSNorm per head (S_t^T q_t))

The original divides by q_t . sum_{s <= t} k_s. With elu + 1 that is one positive number a head and token,
and an RMSNorm does not see it; so the norm replaces it, as in arXiv 2210.10340, and no second state is needed.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from longlode.mixers.base import Mixer, MixerSettings, State, refuse_padded_packing, zero_padding
from longlode.mixers.norm import RMSNorm
from longlode.ops.linear_attention import linear_attention, linear_attention_step


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    memory: Tensor | None,
    cu_seqlens: Tensor | None,
    *,
    g: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`linear_attention` on a piece, or its single step when that is what the piece is."""
    if q.shape[1] == 1 and memory is not None and cu_seqlens is None:
        g_t = None if g is None else g[:, 0]
        o_t, memory = linear_attention_step(q[:, 0], k[:, 0], v[:, 0], g=g_t, scale=scale, state=memory)
        return o_t[:, None], memory
    return linear_attention(q, k, v, g=g, scale=scale, state=memory, cu_seqlens=cu_seqlens)


class LinearAttention(Mixer):
    """Letter L: linear attention without decay (arXiv 2006.16236)."""

    letter = "L"
    layer_type = "linear_attention"

    def __init__(self, settings: MixerSettings) -> None:
        """Four projections and a norm; no convolution, no gate, as published."""
        super().__init__(settings)
        dim, inner = settings.hidden_size, settings.num_heads * settings.head_dim
        self.q_proj = nn.Linear(dim, inner, bias=False)
        self.k_proj = nn.Linear(dim, inner, bias=False)
        self.v_proj = nn.Linear(dim, inner, bias=False)
        self.o_norm = RMSNorm(settings.head_dim, settings.norm_eps)
        self.o_proj = nn.Linear(inner, dim, bias=False)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        cu_seqlens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """See `Mixer.forward`. State: memory `[N, H, K, V]`. At padding v is 0, so nothing is written."""
        refuse_padded_packing(cu_seqlens, mask)
        x = zero_padding(x, mask)
        shape = (*x.shape[:2], self.settings.num_heads, self.settings.head_dim)
        q, k = (functional.elu(proj(x).view(shape)) + 1 for proj in (self.q_proj, self.k_proj))
        o, memory = attend(q, k, self.v_proj(x).view(shape), (state or {}).get("memory"), cu_seqlens)
        return self.o_proj(self.o_norm(o).flatten(-2)), {"memory": memory}

    @classmethod
    def count_params(cls, settings: MixerSettings) -> int:
        """See `Mixer.count_params`."""
        return 4 * settings.hidden_size * settings.num_heads * settings.head_dim + settings.head_dim

    @classmethod
    def count_flops_per_token(cls, settings: MixerSettings, num_tokens: int) -> float:
        """See `Mixer.count_flops_per_token`: write and read make 4 K V a head, at any length."""
        inner = settings.num_heads * settings.head_dim
        return 8 * settings.hidden_size * inner + 4 * inner * settings.head_dim

    @classmethod
    def count_state_bytes(cls, settings: MixerSettings, num_tokens: int, dtype: torch.dtype) -> int:
        """See `Mixer.count_state_bytes`: the same at every length; the memory is float32 at least."""
        itemsize = torch.promote_types(dtype, torch.float32).itemsize
        return settings.num_heads * settings.head_dim**2 * itemsize
