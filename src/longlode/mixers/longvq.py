"""LongVQ (arXiv 2404.11163): attention over a fixed codebook of keys beside a state space model, joined by a gate.

    h = S4D(x);   q, k = Linear(h) of length K^(1/4) per head;   v = Linear(x);   c_t = the code nearest to k_t
    o_t = sum over j <= t of w_tj v_j / sum of w_tj,   w_tj = exp(q_t . code c_j)
        = sum over codes c of exp(q_t . c) S_c / sum over codes of exp(q_t . c) n_c
    f = sigmoid(Linear(h));   y = f * Linear(o) + (1 - f) * h

S_c is the sum of the values whose key has code c, n_c their number: sums that only grow, in a K x (V + 1) memory of
linear attention whose keys are codes written as one-hot vectors. With as many codes as there are distinct keys, each
exact, this is softmax attention.

Built from public summaries of the paper (no public code was found): quantised keys, queries and keys from the output of
the state space model, the gate; the forms of its gates are ours. Different here: the
codebook learns by gradients, from the attention and from the loss of VQ-VAE (arXiv 1711.00937), instead of by moving
averages, so that a forward pass changes nothing; S4D stands for its moving average; keys inside a chunk are quantised
too, as everywhere, and its bias for near positions is left out. Keys get a gradient straight through the assignment,
as if it were a softmax of distances.
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
from longlode.mixers.linear_attention import additive_map, recur
from longlode.mixers.norm import at_least_float32, l2_norm
from longlode.mixers.s4d import S4D, S4DConfig
from longlode.mixers.segment_map import SegmentMap


@dataclass(frozen=True, kw_only=True)
class LongVQConfig(HeadsConfig):
    """Attention over a codebook beside a state space model (arXiv 2404.11163)."""

    name = "longvq"

    num_codes: int = setting("Codes of each head.", 64, least=1)
    state_size: int = setting("Real numbers of state per channel of the state space model.", 16, least=2)
    commitment: float = setting("Weight of the keys' part of the codebook loss.", 0.25, least=0)
    aux_weight: float = setting("Weight of the codebook loss.", 0.1, least=0)

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> Mixer:
        """See `MixerConfig.build`."""
        return LongVQ(self, hidden_size)


class LongVQ(Mixer):
    """The mixer described at the top of this file."""

    # Straight-through gradients are not those of the computed function, so they have no valid second derivative.
    traits = MixerTraits(shards="map")
    float32_parameters = tuple(f"ssm.{name}" for name in S4D.float32_parameters)
    kept_parameters = tuple(f"ssm.{name}" for name in S4D.kept_parameters)

    def __init__(self, config: LongVQConfig, hidden_size: int) -> None:
        """A state space model, projections, a codebook per head, a gate."""
        super().__init__()
        self.config = config
        inner = config.num_heads * config.head_dim
        self.ssm = S4D(S4DConfig(state_size=config.state_size), hidden_size)
        self.q_proj = nn.Linear(hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(hidden_size, inner, bias=False)
        self.v_proj = nn.Linear(hidden_size, inner, bias=False)
        self.codes = nn.Parameter(torch.empty(config.num_heads, config.num_codes, config.head_dim))
        self.gate_proj = nn.Linear(hidden_size, hidden_size)
        self.o_proj = nn.Linear(inner, hidden_size, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`. State: memory `[N, H, codes, V + 1]`, sums and counts; ssm, the memory of S4D."""
        context, before = context or SequenceContext.of(x), state or {}
        if context.cu_seqlens is not None:
            # The set of codes seen restarts in every document, so each gets a separate row.
            output = self(context.unpack(x), state, context.rows)
            return output._replace(y=context.repack(output.y))
        x = zero_padding(x, context.mask)
        h, ssm, *_ = self.ssm(x, {"memory": before["ssm"]} if "ssm" in before else None, context)
        k = self._unit(self.k_proj(h))
        code, v = self._writes(x, k, context.mask)
        get_memory = context.shard.begin_fold(
            lambda: additive_map(code, v, None, context), before.get("memory")
        )
        q, f = self._unit(self.q_proj(h)), self.gate_proj(h).sigmoid()
        memory = get_memory()
        o, memory = recur(self._weights(q, code, memory), code, v, None, memory, context, scale=1.0)
        mean, total = o.split([self.config.head_dim, 1], dim=-1)
        # Before the first real token the counts are 0.
        mean = mean / torch.where(total > 0, total, 1.0)
        y = f * self.o_proj(mean.flatten(-2)) + (1 - f) * h
        losses, metrics = self._codebook_loss(k, code, context)
        return MixerOutput(y, {"memory": memory, "ssm": ssm["memory"]}, losses, metrics)

    def segment_map(self, x: Tensor, context: SequenceContext | None = None) -> SegmentMap:
        """See `Mixer.segment_map`; S4D starts from `context.shard`'s state before the piece."""
        context = context or SequenceContext.of(x)
        if context.cu_seqlens is not None:
            return self.segment_map(context.unpack(x), context.rows)
        x = zero_padding(x, context.mask)
        k = self._unit(self.k_proj(self.ssm(x, None, context).y))
        return additive_map(*self._writes(x, k, context.mask), None, context)

    def _unit(self, u: Tensor) -> Tensor:
        """Heads `[B, T, H, K]` of length K^(1/4): a product of two is sqrt(K) times a cosine."""
        return l2_norm(u.unflatten(-1, (self.config.num_heads, -1))) * self.config.head_dim**0.25

    def _writes(self, x: Tensor, k: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """One-hot codes of the keys `[B, T, H, codes]`, 0 at padding; values and a one `[B, T, H, V + 1]`."""
        codes = self.codes.to(k.dtype)
        closeness = 2 * torch.einsum("bthk,hck->bthc", k, codes) - codes.square().sum(-1)
        code = functional.one_hot(closeness.argmax(-1), self.config.num_codes).to(k.dtype)
        # Straight through: the value of the choice, the gradient of a softmax over squared distances.
        soft = closeness.softmax(-1)
        code = code + (soft - soft.detach())
        if mask is not None:
            code = code * mask[..., None, None]
        v = self.v_proj(x).unflatten(-1, (self.config.num_heads, -1))
        return code, torch.cat((v, v.new_ones(*v.shape[:3], 1)), dim=-1)

    def _weights(self, q: Tensor, code: Tensor, memory: Tensor | None) -> Tensor:
        """exp(q . c) of the codes seen so far `[B, T, H, codes]`, over their sum, which the normaliser cancels."""
        count = code.detach().cumsum(1)
        if memory is not None:
            count = count + memory[..., -1].detach()[:, None]
        logits = at_least_float32(torch.einsum("bthk,hck->bthc", q, self.codes.to(q.dtype)))
        # Counts are whole numbers.
        return logits.masked_fill(count < 0.5, torch.finfo(logits.dtype).min).softmax(-1).to(q.dtype)

    def _codebook_loss(
        self, k: Tensor, code: Tensor, context: SequenceContext
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Mean squared distance of keys and their codes, for the codes and in part for the keys; the share in use."""
        code = code.detach()
        near = torch.einsum("bthc,hck->bthk", code, self.codes.to(k.dtype))
        mask, shard = context.mask, context.shard
        real = k.new_ones(k.shape[:2]) if mask is None else mask.to(k.dtype)
        weight = real[..., None, None] / (shard.total(real.sum()).clamp(min=1) * k.shape[2] * k.shape[3])
        loss = (weight * (k.detach() - near).square()).sum()
        loss = loss + self.config.commitment * (weight * (k - near.detach()).square()).sum()
        used = (shard.total(code.sum((0, 1))) > 0).to(k.dtype).mean()
        return {"codebook": self.config.aux_weight * shard.total(loss)}, {"codes_used": used}

    def initial_values(self) -> dict[str, Tensor]:
        """Draw codes from the distribution of keys."""
        return {"codes": l2_norm(torch.randn_like(self.codes)) * self.config.head_dim**0.25}

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: distances, weights and sums over all codes, and S4D's; at any length."""
        K = self.config.head_dim
        per_code = 2 * K + 2 * K + 2 * K + 4 * (K + 1)
        own = self.config.num_heads * self.config.num_codes * per_code
        return own + self.ssm.mixing_flops_per_token(num_tokens)

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: the same at every length; sums and counts are float32 at least."""
        shape = (1, self.config.num_heads, self.config.num_codes, self.config.head_dim + 1)
        sums = empty_state(torch.promote_types(dtype, torch.float32), memory=shape)
        return {**sums, "ssm": self.ssm.state_layout(num_tokens, dtype)["memory"]}
