"""Mixture of memories, MoM (arXiv 2502.13685): several memories, of which a token writes and reads a few.

    w = softmax(Linear(x)), the largest `num_active` of M kept and scaled to sum to 1; the others 0
    S_m += beta k_m (v_m - S_m^T k_m)^T where w_m > 0, k_m, v_m, beta_m of projections of their own
    o = sum over m of w_m S_m^T q  +  S_0^T q, the shared memory 0 that every token writes;   y = Linear(RMSNorm(o))

Memories that a token does not choose stay as they are, so unrelated content does not overwrite them. An auxiliary
loss (that of switch transformers, arXiv 2101.03961) keeps the router from always choosing the same.

With `inner` every memory is a whole recurrent mixer of that name, with all its projections, convolutions and norms:

    y = sum over m of w_m inner_m(the tokens that chose m)  +  inner_0(all tokens)

Each reads the tokens that chose it as one shorter sequence. With one memory and no shared one this is the inner mixer
exactly.

As in the authors' code: the router and its scaling, keys, values and strengths per memory, one projection of queries,
one norm over the sum, a shared memory as an option. Different: without `inner` the delta rule has no decay, no
convolutions and no output gate, which that code has; with `inner` queries, norms and outputs belong to each memory.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor, nn

from longlode.core.errors import ConfigError
from longlode.mixers import MIXERS
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
from longlode.mixers.delta_net import write_and_read
from longlode.mixers.document_rows import pick, zero_where
from longlode.mixers.norm import RMSNorm, at_least_float32, l2_norm
from longlode.mixers.overlap import begin_memory
from longlode.mixers.segment_map import SegmentMap, identity_states
from longlode.ops.delta_rule import delta_rule


@dataclass(frozen=True, kw_only=True)
class MixtureOfMemoriesConfig(MixerConfig):
    """Several memories behind a router (arXiv 2502.13685)."""

    name = "mixture_of_memories"

    num_heads: int = setting("H, heads of every memory.", least=1, shared="num_heads")
    head_dim: int = setting("K = V, width of a head.", least=1, shared="head_dim")
    num_memories: int = setting("M, memories to choose from, beside the shared one.", 4, least=1)
    num_active: int = setting("Memories that a token writes and reads, beside the shared one.", 2, least=1)
    inner: str | None = setting(
        "Recurrent mixer that every memory is, by name; unset: the delta rule, with queries, norm and output for all.",
        None,
    )
    shared_memory: bool = setting("Have a memory that every token writes and reads.", True)
    aux_weight: float = setting("Weight of the load-balance loss.", 0.01, least=0)
    conv_size: int = setting("W, of inner mixers with short convolutions.", 4, least=2, shared="conv_size")
    norm_eps: float = setting("Added to the mean square in RMSNorm.", 1e-6, shared="norm_eps")

    def __post_init__(self) -> None:
        """See `MixerConfig`; a token cannot choose more memories than there are."""
        super().__post_init__()
        if self.num_active > self.num_memories:
            raise ConfigError(
                f"num_active is {self.num_active}; expected at most num_memories, {self.num_memories}."
            )

    @property
    def num_shared(self) -> int:
        """Memories that every token writes and reads: 1 or 0."""
        return int(self.shared_memory)

    @property
    def num_all(self) -> int:
        """Memories, the shared one included."""
        return self.num_memories + self.num_shared

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> Mixer:
        """See `MixerConfig.build`. Raises: ConfigError for an inner mixer that is not recurrent."""
        if self.inner is None:
            return MixtureOfMemories(self, hidden_size)
        inner = MIXERS.get(self.inner).from_settings({}, asdict(self))
        return MixtureOfMixers(
            self, hidden_size, [inner.build(hidden_size, layer_idx, num_layers) for _ in range(self.num_all)]
        )


class _Routed(Mixer):
    """The router and its loss, which both forms share."""

    config: MixtureOfMemoriesConfig
    router: nn.Linear

    def _route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Chances of all memories `[B, T, M]`, and the weights of the chosen ones, 0 elsewhere, which sum to 1."""
        chances = at_least_float32(self.router(x)).softmax(-1)
        top = chances.topk(self.config.num_active, dim=-1)
        kept = torch.zeros_like(chances).scatter(-1, top.indices, top.values)
        return chances, kept / kept.sum(-1, keepdim=True)

    def _balance(
        self, chances: Tensor, weights: Tensor, context: SequenceContext
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Load-balance loss M sum_m f_m p_m, 1 when even: f, share of the choices; p, mean chance. Real tokens only."""
        real = chances.new_ones(chances.shape[:2]) if context.mask is None else context.mask.to(chances.dtype)
        # The loss is a product of means, so these are over the tokens of all ranks.
        sums = torch.stack(((weights > 0) * real[..., None], chances * real[..., None])).sum((1, 2))
        count = context.shard.total(real.sum()).clamp(min=1)
        share, chance = context.shard.total(sums) / count
        share = share / self.config.num_active
        loss = self.config.num_memories * (share * chance).sum()
        return {"load_balance": self.config.aux_weight * loss}, {"largest_load": share.max().detach()}


class MixtureOfMemories(_Routed):
    """The mixer described at the top of this file. Memories are heads of the delta rule; unchosen ones get beta = 0."""

    traits = MixerTraits(shards="map")

    def __init__(self, config: MixtureOfMemoriesConfig, hidden_size: int) -> None:
        """Queries, a router, and keys, values and strengths for every memory and the shared one."""
        super().__init__()
        self.config = config
        inner, num_all = config.num_heads * config.head_dim, config.num_all
        self.q_proj = nn.Linear(hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(hidden_size, num_all * inner, bias=False)
        self.v_proj = nn.Linear(hidden_size, num_all * inner, bias=False)
        self.b_proj = nn.Linear(hidden_size, num_all * config.num_heads, bias=False)
        self.router = nn.Linear(hidden_size, config.num_memories, bias=False)
        self.o_norm = RMSNorm(config.head_dim, config.norm_eps)
        self.o_proj = nn.Linear(inner, hidden_size, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`. State: memory `[N, memories H, K, V]`, the shared one first."""
        context = context or SequenceContext.of(x)
        x = zero_padding(x, context.mask)
        chances, weights = self._route(x)
        k, v, beta = self._writes(x, weights, context.mask)
        num_all, H = self.config.num_all, self.config.num_heads
        make_map = partial(self._map, k, v, beta, context)
        get_memory = begin_memory((state or {}).get("memory"), make_map, context)
        q = l2_norm(self.q_proj(x).unflatten(-1, (H, -1))).repeat(1, 1, num_all, 1)
        o, memory = write_and_read(q, k, v, beta, None, get_memory, context)
        sizes = [self.config.num_shared, self.config.num_memories]
        shared, chosen = o.unflatten(2, (num_all, H)).split(sizes, dim=2)
        o = shared.sum(2) + (weights.to(o.dtype)[..., None, None] * chosen).sum(2)
        y = self.o_proj(self.o_norm(o).flatten(-2))
        losses, metrics = self._balance(chances, weights, context)
        return MixerOutput(y, {"memory": memory}, losses, metrics)

    def segment_map(self, x: Tensor, context: SequenceContext | None = None) -> SegmentMap:
        """See `Mixer.segment_map`."""
        context = context or SequenceContext.of(x)
        x = zero_padding(x, context.mask)
        return self._map(*self._writes(x, self._route(x)[1], context.mask), context)

    def _writes(self, x: Tensor, weights: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """k, v `[B, T, memories H, K]` and beta `[B, T, memories H]`, 0 for memories not chosen and at padding."""
        num_all, H = self.config.num_all, self.config.num_heads
        k = l2_norm(self.k_proj(x).unflatten(-1, (num_all * H, -1)))
        v = self.v_proj(x).unflatten(-1, (num_all * H, -1))
        open_to = nn.functional.pad((weights > 0).to(weights.dtype), (self.config.num_shared, 0), value=1.0)
        if mask is not None:
            open_to = open_to * mask[..., None]
        beta = at_least_float32(self.b_proj(x)).sigmoid() * open_to.repeat_interleave(H, dim=-1)
        return k, v, beta

    def _map(self, k: Tensor, v: Tensor, beta: Tensor, context: SequenceContext) -> SegmentMap:
        """Compute the map as for the delta rule (`delta_net.py`)."""
        _, added = delta_rule(k, k, v, beta, cu_seqlens=context.documents)
        identity = identity_states(context.num_states, k.shape[2], k.shape[3], like=k)
        zero = torch.zeros_like(k)
        _, matrix = delta_rule(k, k, zero, beta, state=identity, cu_seqlens=context.documents)
        return SegmentMap(added, matrix)

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: 6 K V per head of every memory, chosen or not, and their sum."""
        num_all, inner = self.config.num_all, self.config.num_heads * self.config.head_dim
        return num_all * inner * (6 * self.config.head_dim + 2)

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: the same at every length; the memory is float32 at least."""
        heads, K = self.config.num_all * self.config.num_heads, self.config.head_dim
        return empty_state(torch.promote_types(dtype, torch.float32), memory=(1, heads, K, K))


class MixtureOfMixers(_Routed):
    """The form with `inner`: memories are mixers, modules called memory_0, ..., the shared one first."""

    traits = MixerTraits()

    def __init__(self, config: MixtureOfMemoriesConfig, hidden_size: int, memories: Sequence[Mixer]) -> None:
        """A router before the given mixers. Raises: ConfigError if they are not recurrent."""
        super().__init__()
        self.config = config
        self.router = nn.Linear(hidden_size, config.num_memories, bias=False)
        for number, memory in enumerate(memories):
            if not _is_recurrent(memory):
                raise ConfigError(
                    f"inner is {config.inner!r}, whose state depends on how much was read, or which needs more than "
                    "the tokens before; expected a causal mixer with a state of one size, e.g. gated_delta_net."
                )
            self.add_module(f"memory_{number}", memory)
        # Like the modules, these differ from one inner mixer to another.
        self.float32_parameters = self._named("float32_parameters")  # type: ignore[misc]
        self.kept_parameters = self._named("kept_parameters")  # type: ignore[misc]

    @property
    def _memories(self) -> list[Mixer]:
        return [self.get_submodule(f"memory_{n}") for n in range(self.config.num_all)]  # type: ignore[misc]

    def _named(self, attribute: str) -> tuple[str, ...]:
        """Names of parameters that the memories list under `attribute`."""
        return tuple(
            f"memory_{n}.{name}" for n, one in enumerate(self._memories) for name in getattr(one, attribute)
        )

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`. State: that of memory n as mn_*."""
        context = context or SequenceContext.of(x)
        if context.cu_seqlens is not None:
            # Documents have different numbers of tokens for a memory, so each gets a separate row.
            output = self(context.unpack(x), state, context.rows)
            return output._replace(y=context.repack(output.y))
        x = zero_padding(x, context.mask)
        chances, weights = self._route(x)
        num_shared = self.config.num_shared
        weights = nn.functional.pad(weights, (num_shared, 0), value=1.0)
        outputs: list[Tensor] = []
        after: State = {}
        losses, metrics = self._balance(chances, weights[..., num_shared:], context)
        for n, memory in enumerate(self._memories):
            chosen = weights[..., n] > 0
            if context.mask is not None:
                chosen = chosen & context.mask
            before = {
                name[len(f"m{n}_") :]: u for name, u in (state or {}).items() if name.startswith(f"m{n}_")
            }
            y, output = _read_chosen(memory, x, chosen, before or None, context)
            outputs.append(weights[..., n, None].to(y.dtype) * y)
            after |= {f"m{n}_{name}": one for name, one in output.state.items()}
            losses |= {f"m{n}_{name}": one for name, one in output.aux_losses.items()}
            metrics |= {f"m{n}_{name}": one for name, one in output.metrics.items()}
        return MixerOutput(torch.stack(outputs).sum(0), after, losses, metrics)

    def flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.flops_per_token`: the router, and as many memories as a token chooses."""
        read = self.config.num_shared + self.config.num_active
        return 2 * self.router.weight.numel() + read * self._memories[0].flops_per_token(num_tokens)

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: of as many memories as a token chooses."""
        read = self.config.num_shared + self.config.num_active
        return read * self._memories[0].mixing_flops_per_token(num_tokens)

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: that of every memory, the same at every length."""
        return {
            f"m{n}_{name}": one
            for n, memory in enumerate(self._memories)
            for name, one in memory.state_layout(num_tokens, dtype).items()
        }


def _read_chosen(
    memory: Mixer, x: Tensor, chosen: Tensor, state: State | None, context: SequenceContext
) -> tuple[Tensor, MixerOutput]:
    """Let a memory read the chosen `[B, T]` tokens of x `[B, T, D]`, its outputs at their places, 0 elsewhere."""
    count = chosen.sum(1)
    # A compiler lays out its tensors before it knows. A row without such a token still needs a state.
    width = x.shape[1] if torch.compiler.is_compiling() else max(1, int(count.max()))
    order = (~chosen).long().argsort(dim=1, stable=True)[:, :width]
    real = torch.arange(width, device=x.device) < count[:, None]
    mask = None if not torch.compiler.is_compiling() and bool(real.all()) else real
    rows = SequenceContext(len(x), width, x.device, mask=mask, keeps_state=context.keeps_state)
    output = memory(pick(x, order), state, rows)
    back = (chosen.cumsum(1) - 1).clamp(min=0)
    return zero_where(pick(output.y, back), ~chosen), output


def _is_recurrent(mixer: Mixer) -> bool:
    """Tell a mixer whose state has one size from the first token on, and which needs nothing but causal tokens."""
    short, long = (
        {name: one.shape for name, one in mixer.state_layout(length, torch.float32).items()}
        for length in (1, 1 << 20)
    )
    traits = mixer.traits
    reads_alone = traits.causal == "always" and traits.steps and not traits.reads_token_ids
    return reads_alone and traits.constant_state and short == long
