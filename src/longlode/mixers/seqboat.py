"""SeqBoat (arXiv 2306.11197): a state space model that decides which tokens enter windowed attention.

    h = S4D(x);   p = softmax(Linear(h) / temperature)_1;   a token is active where p > 1/2
    over the active tokens alone, as a shorter sequence:
        z, v, u = silu(Linear(h));   q = a_q z + b_q,  k = a_k z + b_k, rotary by their positions in the text
        o = Linear(u * softmax attention over the last `window` active tokens)
    y = h + p o where active, h elsewhere

The window counts active tokens, so its reach depends on the model's choices; the state is that of S4D and the last
`window - 1` active keys and values. The share of active tokens is a metric, `activation_rate`; inactive tokens cost
no projections and no attention.

As in the authors' code: the gated attention unit (arXiv 2202.10447) with one head, all of it and the choice read from
the state space model's output; a learned temperature, sqrt(D) at first; p as a factor on the output, which alone gives
the choice a gradient, with no noise; positions of the text. Of its options, rotary positions and softmax (there also
relative biases and squared relu). Different: S4D with its own output layer instead of silu of a multi-head moving
average; that output is added as it is, and silu does not follow the sum with the residual stream.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from longlode.core.errors import ConfigError
from longlode.mixers.attention import rotate
from longlode.mixers.base import (
    Mixer,
    MixerConfig,
    MixerOutput,
    MixerTraits,
    State,
    empty_state,
    setting,
)
from longlode.mixers.context import SequenceContext
from longlode.mixers.document_rows import DocumentRows, last_entries, pick, zero_where
from longlode.mixers.norm import at_least_float32
from longlode.mixers.s4d import S4D, S4DConfig
from longlode.ops.attention import attention


@dataclass(frozen=True, kw_only=True)
class SeqBoatConfig(MixerConfig):
    """A state space model that activates windowed attention token by token (arXiv 2306.11197)."""

    name = "seqboat"

    num_heads: int = setting(
        "Values and gate have num_heads * head_dim numbers.", least=1, shared="num_heads"
    )
    head_dim: int = setting("K, width of a query; even.", least=2, shared="head_dim")
    window: int = setting("Active tokens that one sees, itself included.", 256, least=1, shared="window")
    state_size: int = setting("Real numbers of state per channel of the state space model.", 16, least=2)
    rope_theta: float = setting("Base of the rotary frequencies.", 10000.0, shared="rope_theta")

    def __post_init__(self) -> None:
        """See `MixerConfig`; rotary positions need pairs."""
        super().__post_init__()
        if self.head_dim % 2:
            raise ConfigError(f"head_dim is {self.head_dim}; rotary positions need an even count.")

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> Mixer:
        """See `MixerConfig.build`."""
        return SeqBoat(self, hidden_size)


class SeqBoat(Mixer):
    """The mixer described at the top of this file."""

    traits = MixerTraits(twice_differentiable=True)
    float32_parameters = tuple(f"ssm.{name}" for name in S4D.float32_parameters)
    kept_parameters = tuple(f"ssm.{name}" for name in S4D.kept_parameters)

    def __init__(self, config: SeqBoatConfig, hidden_size: int) -> None:
        """A state space model, the choice, a gated attention unit."""
        super().__init__()
        self.config = config
        inner = config.num_heads * config.head_dim
        self.ssm = S4D(S4DConfig(state_size=config.state_size), hidden_size)
        self.choice_proj = nn.Linear(hidden_size, 2)
        self.log_temperature = nn.Parameter(torch.empty(1))
        self.z_proj = nn.Linear(hidden_size, config.head_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, inner, bias=False)
        self.u_proj = nn.Linear(hidden_size, inner, bias=False)
        self.qk_scale = nn.Parameter(torch.empty(2 * config.head_dim))
        self.qk_bias = nn.Parameter(torch.empty(2 * config.head_dim))
        self.o_proj = nn.Linear(inner, hidden_size, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`.

        State: ssm, the memory of S4D; active_k (rotated) `[N, window - 1, 1, K]`, active_v `[N, window - 1, 1, V]`;
        active_read `[N]`, active tokens so far; position `[N]`, tokens so far.
        """
        context, before = context or SequenceContext.of(x), state or {}
        rows = DocumentRows(context)
        x = rows.take(x)
        h, ssm, *_ = self.ssm(x, {"memory": before["ssm"]} if before else None, rows.context)
        logits = at_least_float32(self.choice_proj(h))
        p = (logits * torch.exp(-self.log_temperature.to(logits.dtype))).softmax(-1)[..., 1]
        active = (p > 0.5) & rows.real
        start = before["position"] if before else torch.zeros_like(rows.lengths)
        o, after = self._attend(h, active, start, before)
        after["position"] = start + rows.lengths
        y = h + zero_where(p.to(h.dtype)[..., None] * o, ~active)
        rate = (active.sum() / rows.real.sum().clamp(min=1)).to(p.dtype)
        return MixerOutput(rows.put(y), {"ssm": ssm["memory"], **after}, {}, {"activation_rate": rate})

    def _attend(self, h: Tensor, active: Tensor, start: Tensor, before: State) -> tuple[Tensor, State]:
        """Compute outputs `[N, T, D]` of the unit, used at active tokens, and the state of the active ones.

        start: position `[N]` of the first token.
        """
        K, kept, num_new = self.config.head_dim, self.config.window - 1, active.sum(1)
        if before:
            old_k, old_v, read = (before[f"active_{name}"] for name in ("k", "v", "read"))
        else:
            old_k = h.new_zeros(len(h), kept, 1, K)
            old_v = h.new_zeros(len(h), kept, 1, self.v_proj.out_features)
            read = torch.zeros_like(num_new)
        # A compiler lays out its tensors before it knows.
        width = active.shape[1] if torch.compiler.is_compiling() else int(num_new.max())
        # Active tokens first, in their order.
        order = (~active).long().argsort(dim=1, stable=True)[:, :width]
        h, real = pick(h, order), torch.arange(width, device=h.device) < num_new[:, None]
        q, k, v = self._unit(h, start[:, None] + order)
        k, v = torch.cat((old_k, k), 1), torch.cat((old_v, v), 1)
        filled = torch.arange(kept, 0, -1, device=h.device) <= read[:, None]
        after = {
            "active_k": last_entries(k, kept + num_new, kept),
            "active_v": last_entries(v, kept + num_new, kept),
            "active_read": read + num_new,
        }
        if not width:
            return h.new_zeros(*active.shape, h.shape[2]), after
        mask = torch.cat((filled, real), 1)
        o = attention(q, k, v, window=self.config.window, q_offset=kept, key_mask=mask)
        o = self.o_proj(functional.silu(self.u_proj(h)) * o[:, :, 0])
        return pick(o, (active.cumsum(1) - 1).clamp(min=0, max=width - 1)), after

    def _unit(self, h: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k `[N, active, 1, K]` and v `[N, active, 1, V]` of the gated attention unit."""
        z = functional.silu(self.z_proj(h)).repeat(1, 1, 2)
        z = z * self.qk_scale.to(z.dtype) + self.qk_bias.to(z.dtype)
        q, k = (rotate(u[:, :, None], position, self.config.rope_theta) for u in z.chunk(2, dim=-1))
        return q, k, functional.silu(self.v_proj(h))[:, :, None]

    def initial_values(self) -> dict[str, Tensor]:
        """Queries and keys as the same features; a temperature of sqrt(D)."""
        temperature = torch.full_like(self.log_temperature, 0.5 * math.log(self.choice_proj.in_features))
        scale, bias = torch.ones_like(self.qk_scale), torch.zeros_like(self.qk_bias)
        return {"qk_scale": scale, "qk_bias": bias, "log_temperature": temperature}

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: S4D, and the window if all tokens are active, which is the most."""
        window = min(self.config.window, num_tokens)
        mean_visible = (window * (window + 1) / 2 + (num_tokens - window) * window) / num_tokens
        per_key = 2 * (self.config.head_dim + self.v_proj.out_features)
        return self.ssm.mixing_flops_per_token(num_tokens) + per_key * mean_visible

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: the same at every length and however many tokens were active."""
        kept = (1, self.config.window - 1, 1)
        keys = empty_state(
            dtype, active_k=(*kept, self.config.head_dim), active_v=(*kept, self.v_proj.out_features)
        )
        ssm = self.ssm.state_layout(num_tokens, dtype)["memory"]
        return {"ssm": ssm, **keys, **empty_state(torch.int64, active_read=(1,), position=(1,))}
