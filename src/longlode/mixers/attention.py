"""Softmax attention with rotary positions and grouped heads, over everything or over a sliding window.

    q, k, v = Linear(x);  q, k rotated by position (RoPE, arXiv 2104.09864)
    y = Linear(softmax(q k^T / sqrt(K)) v)

The full form remembers every key and value; the windowed form remembers the last `window - 1` and so, like
the delta rule, needs constant memory.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from longlode.core.errors import ConfigError
from longlode.mixers.base import Mixer, MixerSettings, State, zero_padding
from longlode.mixers.norm import at_least_float32
from longlode.ops.attention import attention


def rotate(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Turn the pairs (x_i, x_{i + K/2}) of x `[B, T, H, K]` by the angle position * theta^(-2 i / K).

    Args: positions: `[B, T]` or `[1, T]` integers. theta: base of the frequencies.
    Returns: the rotated x in its own dtype; angles are taken in float32, or float64 for float64.
    """
    half = x.shape[-1] // 2
    wide = at_least_float32(x)
    exponent = torch.arange(half, device=x.device, dtype=wide.dtype) / half
    angles = positions[..., None].to(wide.dtype) * theta**-exponent
    cos, sin = angles.cos()[:, :, None], angles.sin()[:, :, None]
    left, right = wide[..., :half], wide[..., half:]
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1).to(x.dtype)


class _RotaryAttention(Mixer):
    """The layer of this file; `visible` says how far back a token sees."""

    def __init__(self, settings: MixerSettings) -> None:
        super().__init__(settings)
        dim, inner = settings.hidden_size, settings.query_heads * settings.query_dim
        inner_kv = settings.num_kv_heads * settings.query_dim
        self.q_proj = nn.Linear(dim, inner, bias=settings.qkv_bias)
        self.k_proj = nn.Linear(dim, inner_kv, bias=settings.qkv_bias)
        self.v_proj = nn.Linear(dim, inner_kv, bias=settings.qkv_bias)
        self.o_proj = nn.Linear(inner, dim, bias=False)

    @staticmethod
    @abstractmethod
    def visible(settings: MixerSettings) -> int | None:
        """Tokens that a token sees, itself included; None for all before it."""

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        cu_seqlens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """See `Mixer.forward`.

        State: k (rotated), v `[N, tokens kept, Hkv, K]`; position `[N]`, real tokens read; mask
        `[N, tokens kept]` once there has been padding, which stands in front. Packed documents leave an empty state.
        """
        if cu_seqlens is not None and (state or mask is not None):
            raise ConfigError(
                "Attention got packed documents (cu_seqlens) together with a state or a padding mask; "
                "expected neither. Continue documents one row each, without cu_seqlens."
            )
        before: State = state or {}
        x = zero_padding(x, mask)
        positions, next_position = _positions(x, before.get("position"), cu_seqlens, mask)
        theta, shape = self.settings.rope_theta, (*x.shape[:2], -1, self.settings.query_dim)
        q = rotate(self.q_proj(x).view(shape), positions, theta)
        k = rotate(self.k_proj(x).view(shape), positions, theta)
        v = self.v_proj(x).view(shape)
        num_kept = before["k"].shape[1] if before else 0
        key_mask = _key_mask(before, mask, k)
        if before:
            k, v = torch.cat((before["k"], k), dim=1), torch.cat((before["v"], v), dim=1)
        window = self.visible(self.settings)
        o = attention(q, k, v, window=window, q_offset=num_kept, key_mask=key_mask, cu_seqlens=cu_seqlens)
        y = self.o_proj(o.flatten(-2))
        if cu_seqlens is not None:
            return y, {}
        after = {"k": k, "v": v, "position": next_position}
        if key_mask is not None:
            # Padding to the front: tokens that a window reaches over would otherwise count it.
            order = key_mask.long().argsort(dim=1, stable=True)
            rows = order[..., None, None]
            after |= {name: after[name].gather(1, rows.expand_as(after[name])) for name in ("k", "v")}
            after["mask"] = key_mask.gather(1, order)
        first = max(0, k.shape[1] - (window - 1)) if window is not None else 0
        if first:
            # A slice would keep the whole text's keys alive; the copy makes the state constant in size.
            after |= {name: after[name][:, first:].clone() for name in ("k", "v", "mask") if name in after}
        return y, after

    @classmethod
    def count_params(cls, settings: MixerSettings) -> int:
        """See `Mixer.count_params`."""
        biases = settings.query_dim * (settings.query_heads + 2 * settings.num_kv_heads)
        return cls._projection_params(settings) + (biases if settings.qkv_bias else 0)

    @classmethod
    def count_flops_per_token(cls, settings: MixerSettings, num_tokens: int) -> float:
        """See `Mixer.count_flops_per_token`: 4 K a head for every token that is visible, on average."""
        window = min(cls.visible(settings) or num_tokens, num_tokens)
        mean_visible = (window * (window + 1) / 2 + (num_tokens - window) * window) / num_tokens
        inner = settings.query_heads * settings.query_dim
        return 2 * cls._projection_params(settings) + 4 * inner * mean_visible

    @classmethod
    def count_state_bytes(cls, settings: MixerSettings, num_tokens: int, dtype: torch.dtype) -> int:
        """See `Mixer.count_state_bytes`: keys and values of the kept tokens, and one int64 position."""
        window = cls.visible(settings)
        num_kept = num_tokens if window is None else min(num_tokens, window - 1)
        return 2 * num_kept * settings.num_kv_heads * settings.query_dim * dtype.itemsize + 8

    @staticmethod
    def _projection_params(settings: MixerSettings) -> int:
        heads = settings.query_heads + settings.num_kv_heads
        return 2 * settings.hidden_size * settings.query_dim * heads


def _positions(
    x: Tensor, start: Tensor | None, cu_seqlens: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Position of every token in its document, padding not counted `[B, T]`; and the next `[B]`."""
    num_rows, num_tokens = x.shape[:2]
    if start is None:
        start = torch.zeros(num_rows, dtype=torch.int64, device=x.device)
    if mask is not None:
        counted = mask.long().cumsum(1)
        return start[:, None] + (counted - 1).clamp(min=0), start + counted[:, -1]
    index = torch.arange(num_tokens, device=x.device)
    if cu_seqlens is not None:
        offsets = cu_seqlens.long()
        index = index - offsets[:-1].repeat_interleave(offsets.diff(), output_size=num_tokens)
    return start[:, None] + index, start + num_tokens


def _key_mask(before: State, mask: Tensor | None, k: Tensor) -> Tensor | None:
    """Mask over kept and new keys `[B, kept + T]`, or None while there has been no padding."""
    if mask is None and "mask" not in before:
        return None
    new = mask if mask is not None else k.new_ones(k.shape[:2], dtype=torch.bool)
    if not before:
        return new
    kept = before.get("mask")
    if kept is None:
        kept = k.new_ones(before["k"].shape[:2], dtype=torch.bool)
    return torch.cat((kept, new), dim=1)


class FullAttention(_RotaryAttention):
    """Letter A: attention over all tokens so far; memory grows with the text."""

    letter = "A"
    layer_type = "full_attention"

    @staticmethod
    def visible(settings: MixerSettings) -> None:
        """All tokens before, and itself."""
        return None


class SlidingWindowAttention(_RotaryAttention):
    """Letter S: attention over the last `window` tokens; constant memory."""

    letter = "S"
    layer_type = "sliding_attention"

    @staticmethod
    def visible(settings: MixerSettings) -> int:
        """The last `window` tokens, itself included."""
        return settings.window
