"""DeltaNet (arXiv 2406.06484) and Gated DeltaNet (arXiv 2412.06464): one layer, with and without decay.

    q, k, v = silu(conv(Linear(x)));  q, k of unit norm per head;  beta = sigmoid(Linear(x))
    o = delta_rule(q, k, v, beta, g);  y = Linear(RMSNorm per head (o))

Gated DeltaNet adds the log-decay g = -exp(A_log) * softplus(Linear(x) + dt_bias), one number per head and
token. The memory is a K x V matrix per head of values and the last W - 1 inputs of each
convolution, however long the text. A head of q and k may serve several heads of v (grouped values), each with beta, g
and memory of its own.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

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
from longlode.mixers.decay import decay_parameter, initial_decay
from longlode.mixers.forgetting import PLAIN, Forgetting
from longlode.mixers.norm import RMSNorm, at_least_float32
from longlode.mixers.overlap import GetMemory, inputs_and_memory
from longlode.mixers.segment_map import SegmentMap, identity_states
from longlode.mixers.short_conv import ShortConv
from longlode.ops.delta_rule import delta_rule, delta_rule_step
from longlode.ops.packed import Offsets


@dataclass(frozen=True, kw_only=True)
class DeltaNetConfig(MixerConfig):
    """The delta rule without decay (arXiv 2406.06484)."""

    name = "delta_net"

    num_heads: int = setting("H, heads.", least=1, shared="num_heads")
    head_dim: int = setting("K, width of a key.", least=1, shared="head_dim")
    num_v_heads: int | None = setting(
        "HV, heads of values, a multiple of H: each head of keys then serves HV / H of them (grouped values); "
        "unset: H.",
        None,
        least=1,
        shared="num_v_heads",
    )
    expand_v: float = setting("V / K, width of a value over that of a key.", 1.0, shared="expand_v")
    conv_size: int = setting("W, tokens that the short convolutions see.", 4, least=2, shared="conv_size")
    allow_neg_eigval: bool = setting(
        "Double beta, so that a write may flip the sign of what stood under its key (arXiv 2411.12537).",
        False,
        shared="allow_neg_eigval",
    )
    use_output_gate: bool = setting(
        "Multiply the normalised output by silu(Linear(x)).", False, shared="use_output_gate"
    )
    norm_eps: float = setting("Added to the mean square in RMSNorm.", 1e-6, shared="norm_eps")

    def __post_init__(self) -> None:
        """See `MixerConfig`; values have a whole number of entries, and as many heads as keys or a multiple."""
        super().__post_init__()
        if self.value_heads % self.num_heads:
            raise ConfigError(
                f"num_v_heads is {self.num_v_heads} and num_heads {self.num_heads}; expected as many, or a multiple "
                "(each head of keys then serves several of values)."
            )
        if self.expand_v <= 0 or self.value_dim != self.head_dim * self.expand_v:
            raise ConfigError(
                f"expand_v {self.expand_v} times head_dim {self.head_dim} is no whole number above 0."
            )

    @property
    def value_heads(self) -> int:
        """HV, heads of values, each with a memory of its own."""
        return self.num_heads if self.num_v_heads is None else self.num_v_heads

    @property
    def value_dim(self) -> int:
        """V, width of a value."""
        return round(self.head_dim * self.expand_v)

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> "Mixer":
        """See `MixerConfig.build`."""
        return DeltaNet(self, hidden_size)


@dataclass(frozen=True, kw_only=True)
class GatedDeltaNetConfig(DeltaNetConfig):
    """The delta rule with a data-dependent decay (arXiv 2412.06464)."""

    name = "gated_delta_net"

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> "Mixer":
        """See `MixerConfig.build`."""
        return GatedDeltaNet(self, hidden_size)


class _Writes(NamedTuple):
    """Writes of the delta rule: k `[B, T, H, K]`, v `[B, T, HV, V]`, beta and g `[B, T, HV]`; g None: no decay."""

    k: Tensor
    v: Tensor
    beta: Tensor
    g: Tensor | None


class DeltaNet(Mixer):
    """DeltaNet; with the decay if `gated`."""

    traits = MixerTraits(shards="map", narrow_input=True)
    forgetting: Forgetting = PLAIN
    gated: ClassVar[bool] = False

    def __init__(self, config: DeltaNetConfig, hidden_size: int) -> None:
        """Projections of q, k, v and beta, three convolutions, a norm per head."""
        super().__init__()
        self.config = config
        inner_k, inner_v = config.num_heads * config.head_dim, config.value_heads * config.value_dim
        self.q_proj = nn.Linear(hidden_size, inner_k, bias=False)
        self.k_proj = nn.Linear(hidden_size, inner_k, bias=False)
        self.v_proj = nn.Linear(hidden_size, inner_v, bias=False)
        self.b_proj = nn.Linear(hidden_size, config.value_heads, bias=False)
        self.q_conv1d = ShortConv(inner_k, config.conv_size, unit_norm=config.head_dim)
        self.k_conv1d = ShortConv(inner_k, config.conv_size, unit_norm=config.head_dim)
        self.v_conv1d = ShortConv(inner_v, config.conv_size)
        if self.gated:
            self.a_proj = nn.Linear(hidden_size, config.value_heads, bias=False)
            self.A_log = decay_parameter(config.value_heads)
            self.dt_bias = decay_parameter(config.value_heads)
        if config.use_output_gate:
            self.g_proj = nn.Linear(hidden_size, inner_v, bias=False)
        self.o_norm = RMSNorm(config.value_dim, config.norm_eps)
        self.o_proj = nn.Linear(inner_v, hidden_size, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`.

        State: conv_q, conv_k `[N, H K, W - 1]`, conv_v `[N, HV V, W - 1]`, memory `[N, HV, K, V]`.
        """
        context, before = context or SequenceContext.of(x), state or {}
        # Padding must be zero before the convolution, or the convolution spreads it to the first real tokens.
        x = zero_padding(x, context.mask)
        (q, conv_q), (writes, convs), get_memory = inputs_and_memory(
            lambda: self._queries(x, before, context),
            lambda: self._writes(x, before, context),
            lambda written: self._map(written[0], context),
            before.get("memory"),
            context,
        )
        q = q.unflatten(-1, (self.config.num_heads, -1))
        gate = functional.silu(self.g_proj(x)) if self.config.use_output_gate else None
        o, memory = write_and_read(q, *writes, get_memory, context)
        o = self.o_norm(o)
        if gate is not None:
            o = o * gate.view_as(o)
        return MixerOutput(self.o_proj(o.flatten(-2)), {"conv_q": conv_q, **convs, "memory": memory})

    def segment_map(self, x: Tensor, context: SequenceContext | None = None) -> SegmentMap:
        """See `Mixer.segment_map`; the convolutions start from `context.shard`'s inputs before the piece."""
        context = context or SequenceContext.of(x)
        writes, _ = self._writes(zero_padding(x, context.mask), {}, context)
        return self._map(writes, context)

    def _queries(self, x: Tensor, before: State, context: SequenceContext) -> tuple[Tensor, Tensor]:
        """Compute q `[B, T, H K]`, each head of unit norm, and the state of its convolution."""
        return self.q_conv1d(self.q_proj(x), before.get("conv_q"), context)

    def _writes(self, x: Tensor, before: State, context: SequenceContext) -> tuple[_Writes, State]:
        """Compute the writes at each token, and the state of their two convolutions."""
        k, conv_k = self.k_conv1d(self.k_proj(x), before.get("conv_k"), context)
        v, conv_v = self.v_conv1d(self.v_proj(x), before.get("conv_v"), context)
        k = k.unflatten(-1, (self.config.num_heads, -1))
        v = v.unflatten(-1, (self.config.value_heads, -1))
        beta, g = self._strength_and_decay(x, context.mask)
        return _Writes(k, v, beta, g), {"conv_k": conv_k, "conv_v": conv_v}

    def _map(self, writes: _Writes, context: SequenceContext) -> SegmentMap:
        """Compute the map S -> M S + H: M from an identity state with zero values, H from a zero state."""
        k, v, beta, g = writes
        offsets = context.documents
        _, added = delta_rule(k, k, v, beta, g=g, cu_seqlens=offsets)
        heads, K = v.shape[2], k.shape[3]
        identity = identity_states(context.num_states, heads, K, like=k)
        # Values of 0, as wide as the columns of the identity, so that only the keys act on it.
        nothing = k.new_zeros(*k.shape[:2], heads, K)
        _, matrix = delta_rule(k, k, nothing, beta, g=g, state=identity, cu_seqlens=offsets)
        return SegmentMap(added, matrix)

    def _strength_and_decay(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return beta and the log-decay g (or None), both `[B, T, HV]`, 0 at padding: memory untouched."""
        beta = at_least_float32(self.b_proj(x)).sigmoid()
        if self.config.allow_neg_eigval:
            beta = 2 * beta
        g = None
        if self.gated:
            step = functional.softplus(at_least_float32(self.a_proj(x)) + self.dt_bias)
            g = -self.A_log.to(step.dtype).exp() * step
        elif self.forgetting.fade:
            g = torch.zeros_like(beta)
        elif self.forgetting.decay != 1:
            raise ConfigError(
                f"forgetting.decay is {self.forgetting.decay} for the delta rule without decay, which it cannot scale; "
                "expected a fade."
            )
        if mask is not None:
            beta = beta * mask[..., None]
            g = g * mask[..., None] if g is not None else None
        return self.forgetting.written(beta), None if g is None else self.forgetting.decayed(g, mask)

    def initial_values(self) -> dict[str, Tensor]:
        """Decays as Mamba-2 draws them."""
        return initial_decay(self.A_log, self.dt_bias) if self.gated else {}

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: read old, write, read make 6 K V per memory, at any length."""
        return 6 * self.config.value_heads * self.config.head_dim * self.config.value_dim

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: the same at every length; the memory is float32 at least."""
        config, kept = self.config, self.config.conv_size - 1
        K, V = config.head_dim, config.value_dim
        keys, values = (1, config.num_heads * K, kept), (1, config.value_heads * V, kept)
        convs = empty_state(dtype, conv_q=keys, conv_k=keys, conv_v=values)
        wide = torch.promote_types(dtype, torch.float32)
        return convs | empty_state(wide, memory=(1, config.value_heads, K, V))


def write_and_read(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    get_memory: GetMemory | None,
    context: SequenceContext,
) -> tuple[Tensor, Tensor]:
    """Apply `delta_rule` to a piece, or its single step to a piece of one token: o, and the memory after the piece.

    get_memory: as `overlap.begin_memory` returns it.
    """
    if get_memory is None:
        o = context.shard.by_heads(_whole_sequences, q, k, v, beta, g)
        return o, o.new_empty(0)
    memory = get_memory()
    if q.shape[1] == 1 and memory is not None and context.cu_seqlens is None:
        g_t = None if g is None else g[:, 0]
        o_t, memory = delta_rule_step(q[:, 0], k[:, 0], v[:, 0], beta[:, 0], g=g_t, state=memory)
        return o_t[:, None], memory
    return delta_rule(q, k, v, beta, g=g, state=memory, cu_seqlens=context.documents)


def _whole_sequences(
    offsets: Offsets | None, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor | None
) -> Tensor:
    return delta_rule(q, k, v, beta, g=g, cu_seqlens=offsets)[0]


class GatedDeltaNet(DeltaNet):
    """The delta rule with a data-dependent decay (arXiv 2412.06464)."""

    gated = True
    float32_parameters = ("A_log", "dt_bias")
