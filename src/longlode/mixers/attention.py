"""Softmax attention with rotary positions and grouped heads, over everything or over a sliding window.

    q, k, v = Linear(x);  q, k rotated by position (RoPE, arXiv 2104.09864)
    y = Linear(softmax(q k^T / sqrt(K)) v)

The full form keeps every key and value; the windowed form keeps the last `window - 1` and so, like the delta rule,
needs constant memory.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

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
from longlode.mixers.growing import append
from longlode.mixers.norm import at_least_float32
from longlode.ops.attention import attention


def rotate(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotate the pairs (x_i, x_{i + K/2}) of x `[B, T, H, K]` by the angle position * theta^(-2 i / K).

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


@dataclass(frozen=True, kw_only=True)
class RotaryHeadsConfig(MixerConfig):
    """Settings of attention of other kinds whose queries and keys are always rotated, a key head per query head."""

    layer_type = "full_attention"

    num_heads: int = setting("H, heads.", least=1, shared="attn_num_heads num_heads")
    head_dim: int = setting("K = V, width of a head.", least=1, shared="attn_head_dim head_dim")
    rope_theta: float = setting("Base of the rotary frequencies.", 10000.0, shared="rope_theta")

    def __post_init__(self) -> None:
        """See `MixerConfig`; rotary positions need pairs."""
        super().__post_init__()
        if self.head_dim % 2:
            raise ConfigError(
                f"head_dim is {self.head_dim} in {self.name}; rotary positions need an even count."
            )
        if self.rope_theta <= 0:
            raise ConfigError(f"rope_theta is {self.rope_theta}; expected a number above 0.")


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(MixerConfig):
    """Softmax attention over all tokens so far; memory grows with the text."""

    name = "attention"
    layer_type = "full_attention"

    num_heads: int = setting("H, query heads.", least=1, shared="attn_num_heads num_heads")
    head_dim: int = setting("K = V, width of a head.", least=1, shared="attn_head_dim head_dim")
    num_kv_heads: int | None = setting(
        "Key and value heads, which divide the query heads; none: as many.",
        None,
        least=1,
        shared="num_kv_heads",
    )
    rope_theta: float = setting("Base of the rotary frequencies.", 10000.0, shared="rope_theta")
    rope: bool = setting("Rotate queries and keys by their position.", True, shared="rope")
    qkv_bias: bool = setting("Add a bias to q, k and v.", False, shared="qkv_bias")

    def __post_init__(self) -> None:
        """See `MixerConfig`; heads must divide, and rotary positions need pairs."""
        super().__post_init__()
        if self.num_heads % self.key_heads:
            raise ConfigError(
                f"The {self.num_heads} heads of attention are not a multiple of num_kv_heads {self.key_heads}."
            )
        if self.rope and self.head_dim % 2:
            raise ConfigError(
                f"Heads of attention have {self.head_dim} numbers; rotary positions need an even count."
            )
        if self.rope_theta <= 0:
            raise ConfigError(f"rope_theta is {self.rope_theta}; expected a number above 0.")

    @property
    def key_heads(self) -> int:
        """Key and value heads."""
        return self.num_kv_heads or self.num_heads

    @property
    def visible(self) -> int | None:
        """Tokens that a token sees, itself included; None for all before it."""
        return None

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> "Mixer":
        """See `MixerConfig.build`."""
        return FullAttention(self, hidden_size)


@dataclass(frozen=True, kw_only=True)
class SlidingWindowAttentionConfig(AttentionConfig):
    """Softmax attention over the last `window` tokens; constant memory."""

    name = "sliding_window_attention"
    layer_type = "sliding_attention"

    window: int = setting("Tokens that a token sees, itself included.", 2048, least=1, shared="window")

    @property
    def visible(self) -> int:
        """The last `window` tokens, itself included."""
        return self.window

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> "Mixer":
        """See `MixerConfig.build`."""
        return SlidingWindowAttention(self, hidden_size)


class FullAttention(Mixer):
    """Attention over all tokens so far, or over the last `config.visible`."""

    traits = MixerTraits(
        constant_state=False,
        shards="gather",
        exports_any_length=True,
        twice_differentiable=True,
        has_weights=True,
        narrow_input=True,
    )

    def __init__(self, config: AttentionConfig, hidden_size: int) -> None:
        """Projections of queries, keys, values and outputs."""
        super().__init__()
        self.config = config
        inner, inner_kv = config.num_heads * config.head_dim, config.key_heads * config.head_dim
        self.q_proj = nn.Linear(hidden_size, inner, bias=config.qkv_bias)
        self.k_proj = nn.Linear(hidden_size, inner_kv, bias=config.qkv_bias)
        self.v_proj = nn.Linear(hidden_size, inner_kv, bias=config.qkv_bias)
        self.o_proj = nn.Linear(inner, hidden_size, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`.

        State: k (rotated), v `[N, tokens kept, Hkv, K]`; position `[N]`, real tokens read; mask
        `[N, tokens kept]` once there has been padding, which is in front. For packed documents a state is
        made or continued only if requested or given, as it needs a padded copy.
        """
        context = context or SequenceContext.of(x)
        if context.cu_seqlens is not None and (state or context.keeps_state):
            return self._packed(x, state, context)
        before: State = state or {}
        x = zero_padding(x, context.mask)
        start = before.get("position")
        if start is None:
            start = torch.zeros(context.num_states, dtype=torch.int64, device=x.device)
        positions = context.sequence_positions
        q, k, v = self.project(x, start[:, None] + positions if before else positions)
        shard, num_new = context.shard, k.shape[1]
        if shard.num_ranks > 1 and not (before or context.keeps_state or context.wants_weights):
            o = shard.attend(q, k, v, self.config.visible)
            return MixerOutput(self.o_proj(o.flatten(-2)), {})
        last = None if self.config.visible is None else self.config.visible - 1
        k, v = shard.gather(k, v, last=last)
        key_mask = _key_mask(before, shard.gathered_mask(context.mask, last), k)
        num_kept = k.shape[1] - num_new
        if before:
            num_kept += before["k"].shape[1]
            k, v = append(before["k"], k), append(before["v"], v)
        o, weights = self._attend(q, k, v, num_kept, key_mask, context)
        y = self.o_proj(o.flatten(-2))
        if context.cu_seqlens is not None:
            return MixerOutput(y, {}, weights=weights)
        num_read = context.lengths if shard.tokens_before is None else context.lengths + shard.tokens_before
        after = self._kept(k, v, start + num_read, key_mask, in_front=context.mask is None)
        return MixerOutput(y, after, weights=weights)

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `[B, T, H, K]`, keys `[B, T, Hkv, K]` and values of x; both rotated by positions `[B or 1, T]`."""
        theta, shape = self.config.rope_theta, (*x.shape[:2], -1, self.config.head_dim)
        q, k, v = (layer(x).view(shape) for layer in (self.q_proj, self.k_proj, self.v_proj))
        if self.config.rope:
            q, k = rotate(q, positions, theta), rotate(k, positions, theta)
        return q, k, v

    def _packed(self, x: Tensor, state: State | None, context: SequenceContext) -> MixerOutput:
        """Mix packed documents with states: each in a separate row, padded at the right."""
        output = self(context.unpack(x), state, context.rows)
        return output._replace(y=context.repack(output.y), weights=None)

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        num_kept: int,
        key_mask: Tensor | None,
        context: SequenceContext,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute outputs `[B, T, H, K]`, and the weights `[B, H, T, J]` if requested."""
        if not context.wants_weights:
            o = attention(
                q,
                k,
                v,
                window=self.config.visible,
                q_offset=num_kept,
                key_mask=key_mask,
                cu_seqlens=context.documents,
            )
            return o, None
        weights = _weights(q, k, num_kept, self.config.visible, key_mask, context)
        values = v.transpose(1, 2).repeat_interleave(q.shape[2] // v.shape[2], dim=1)
        return (weights @ values).transpose(1, 2), weights

    def _kept(self, k: Tensor, v: Tensor, position: Tensor, key_mask: Tensor | None, in_front: bool) -> State:
        """Make the state after this piece from all keys and values so far, whose padding is `in_front` already."""
        after = {"k": k, "v": v, "position": position}
        if key_mask is not None and in_front:
            after["mask"] = key_mask
        elif key_mask is not None:
            # Padding moves to the front: otherwise a window of so many tokens would count it.
            order = key_mask.long().argsort(dim=1, stable=True)
            rows = order[..., None, None]
            after |= {name: after[name].gather(1, rows.expand_as(after[name])) for name in ("k", "v")}
            after["mask"] = key_mask.gather(1, order)
        window = self.config.visible
        first = max(0, k.shape[1] - (window - 1)) if window is not None else 0
        if first:
            # A slice would keep the memory of the whole text's keys; the copy makes the state constant in size.
            after |= {name: after[name][:, first:].clone() for name in ("k", "v", "mask") if name in after}
        return after

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: 4 K per head for every token that is visible, on average."""
        window = min(self.config.visible or num_tokens, num_tokens)
        mean_visible = (window * (window + 1) / 2 + (num_tokens - window) * window) / num_tokens
        return 4 * self.config.num_heads * self.config.head_dim * mean_visible

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: keys and values of the kept tokens, and one int64 position."""
        window = self.config.visible
        num_kept = num_tokens if window is None else min(num_tokens, window - 1)
        shape = (1, num_kept, self.config.key_heads, self.config.head_dim)
        return empty_state(dtype, k=shape, v=shape) | empty_state(torch.int64, position=(1,))


class SlidingWindowAttention(FullAttention):
    """Attention over the last `window` tokens."""

    traits = replace(FullAttention.traits, constant_state=True, exports_any_length=False)


def _key_mask(before: State, mask: Tensor | None, k: Tensor) -> Tensor | None:
    """Make the mask over kept and new keys `[B, kept + T]`, or None while there has been no padding."""
    if mask is None and "mask" not in before:
        return None
    new = mask if mask is not None else k.new_ones(k.shape[:2], dtype=torch.bool)
    if not before:
        return new
    kept = before.get("mask")
    if kept is None:
        kept = k.new_ones(before["k"].shape[:2], dtype=torch.bool)
    return torch.cat((kept, new), dim=1)


def _weights(
    q: Tensor,
    k: Tensor,
    num_kept: int,
    window: int | None,
    key_mask: Tensor | None,
    context: SequenceContext,
) -> Tensor:
    """Compute softmax weights `[B, H, T, J]` of queries after `num_kept` keys; 0 for a query that sees no key."""
    keys = k.transpose(1, 2).repeat_interleave(q.shape[2] // k.shape[2], dim=1)
    logits = q.transpose(1, 2) @ keys.mT * q.shape[-1] ** -0.5
    position = torch.arange(q.shape[1], device=q.device)[:, None] + num_kept
    key = torch.arange(k.shape[1], device=q.device)
    seen = key <= position
    if window is not None:
        seen = seen & (key > position - window)
    seen = seen[None, None]
    if key_mask is not None:
        seen = seen & key_mask[:, None, None]
    if context.cu_seqlens is not None:
        # A token's document is the number of documents that have begun by it.
        document = torch.searchsorted(context.cu_seqlens.long(), key, right=True)
        seen = seen & (document == document[:, None])
    weights = at_least_float32(logits).masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.where(seen, weights, 0.0).to(q.dtype)
