"""HAX (arXiv 2507.00449): a state space model beside attention to what content selects, by hashes and by key scores.

    y = Mamba-2(x) + Linear(o);   q, k, v = Linear(x)
    hash heads:    bucket(u) = argmax over (R u, -R u), R random
                   o_t = softmax attention over the last `capacity` keys j with bucket(k_j) = bucket(q_t)
    scored heads:  s_j = w . silu(Linear(k_j))
                   o_t = attention, softmax(q_t . k_j / sqrt(K) + s_j), over the `num_selected` past keys of largest s

A state space model cannot solve joint recall (a value under a key in a context) below quadratic cost; beside such
attention it can. Hashing routes a query to similar keys; scores keep keys that any query may need.

As the paper says (its code was not compared): both patterns, a random hash, scores that do not see the query, added to
the state space model's block.
Different: strictly causal and of constant state: a query sees the last keys of its bucket, where the paper sorts
tokens by bucket and cuts the order into chunks; selected are the best keys up to the token itself, ties going to the
newer; heads are split between the patterns; the score is also added to the logits, so that it learns.
"""

from dataclasses import dataclass

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
)
from longlode.mixers.bucket_attention import Buckets, bucket_attention
from longlode.mixers.context import SequenceContext
from longlode.mixers.document_rows import DocumentRows
from longlode.mixers.mamba2 import Mamba2, Mamba2Config
from longlode.mixers.norm import at_least_float32
from longlode.ops.slices import Slices

# Queries for which the best keys are selected together.
_CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class HAXConfig(MixerConfig):
    """A state space model beside hashed and selected attention (arXiv 2507.00449)."""

    name = "hax"

    num_heads: int = setting("H, heads, of Mamba-2 and of attention; even.", least=2, shared="num_heads")
    head_dim: int = setting("K = V, width of a head.", least=1, shared="head_dim")
    num_hashes: int = setting("Random directions; there are twice as many buckets.", 8, least=1)
    capacity: int = setting("Keys that a query sees of its bucket.", 32, least=1)
    num_selected: int = setting("Keys that every query of a scored head sees.", 32, least=1)
    conv_size: int = setting("W, tokens that Mamba-2's convolutions see.", 4, least=2, shared="conv_size")
    norm_eps: float = setting("Added to the mean square in RMSNorm.", 1e-6, shared="norm_eps")

    def __post_init__(self) -> None:
        """See `MixerConfig`; heads are halved."""
        super().__post_init__()
        if self.num_heads % 2:
            raise ConfigError(
                f"num_heads is {self.num_heads}; half of HAX's heads hash, so it expects an even count."
            )

    @property
    def inner(self) -> Mamba2Config:
        """Settings of the state space model."""
        return Mamba2Config(
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            conv_size=self.conv_size,
            norm_eps=self.norm_eps,
        )

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> Mixer:
        """See `MixerConfig.build`."""
        return HAX(self, hidden_size)


class HAX(Mixer):
    """The mixer described at the top of this file."""

    traits = MixerTraits()
    float32_parameters = tuple(f"ssm.{name}" for name in Mamba2.float32_parameters)
    kept_parameters = tuple(f"ssm.{name}" for name in Mamba2.kept_parameters)

    def __init__(self, config: HAXConfig, hidden_size: int) -> None:
        """Mamba-2, projections of attention, a hash, a score of keys."""
        super().__init__()
        self.config = config
        inner = config.num_heads * config.head_dim
        self.ssm = Mamba2(config.inner, hidden_size)
        self.q_proj = nn.Linear(hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(hidden_size, inner, bias=False)
        self.v_proj = nn.Linear(hidden_size, inner, bias=False)
        # Only the index of the largest product is used, so these get no gradient; they are saved like parameters.
        self.directions = nn.Parameter(torch.empty(config.num_heads // 2, config.head_dim, config.num_hashes))
        self.score = nn.Sequential(
            nn.Linear(config.head_dim, config.head_dim), nn.SiLU(), nn.Linear(config.head_dim, 1, bias=False)
        )
        self.o_proj = nn.Linear(inner, hidden_size, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`.

        State: that of Mamba-2 as ssm_*; bucket_k, bucket_v `[N, H / 2, buckets, capacity, K]` and bucket_size;
        selected_k, selected_v `[N, H / 2, num_selected, K]` in the order they were read, selected_score, -inf: none.
        """
        context, before = context or SequenceContext.of(x), state or {}
        rows = DocumentRows(context)
        x = rows.take(x)
        inner = {name[4:]: one for name, one in before.items() if name.startswith("ssm_")}
        y, ssm, *_ = self.ssm(x, inner or None, rows.context)
        half, split = self.config.num_heads // 2, (self.config.num_heads, self.config.head_dim)
        q, k, v = (proj(x).unflatten(-1, split) for proj in (self.q_proj, self.k_proj, self.v_proj))
        hashed, kept = self._hashed(q[:, :, :half], k[:, :, :half], v[:, :, :half], rows.real, before)
        scored, selected = self._scored(q[:, :, half:], k[:, :, half:], v[:, :, half:], rows.real, before)
        y = y + self.o_proj(torch.cat((hashed, scored), 2).flatten(-2))
        return MixerOutput(rows.put(y), {f"ssm_{name}": one for name, one in ssm.items()} | kept | selected)

    def _hashed(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor, before: State) -> tuple[Tensor, State]:
        """Outputs of the hash heads `[N, T, H / 2, K]`, and the buckets."""
        if before:
            buckets = Buckets(before["bucket_k"], before["bucket_v"], before["bucket_size"])
        else:
            buckets = Buckets.empty(k, 2 * self.config.num_hashes, self.config.capacity)
        asked, put = self._bucket(q), self._bucket(k)
        o, after = bucket_attention(q, k, v, asked, put, real, buckets)
        return o, {"bucket_k": after.k, "bucket_v": after.v, "bucket_size": after.size}

    def _bucket(self, u: Tensor) -> Tensor:
        """The bucket of each head of u `[N, T, H / 2, K]`."""
        along = torch.einsum("nthk,hkr->nthr", u.detach(), self.directions.detach().to(u.dtype))
        return torch.cat((along, -along), dim=-1).argmax(-1)

    def _scored(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor, before: State) -> tuple[Tensor, State]:
        """Outputs of the scored heads `[N, T, H / 2, K]`, and the keys that are selected after the piece."""
        score = at_least_float32(self.score(k)[..., 0]).masked_fill(~real[..., None], -torch.inf)
        q, k, v, score = (u.transpose(1, 2) for u in (q, k, v, score))
        if before:
            kept_k, kept_v, kept = (before[f"selected_{name}"] for name in ("k", "v", "score"))
        else:
            kept_k = kept_v = k.new_zeros(*k.shape[:2], self.config.num_selected, k.shape[-1])
            kept = score.new_full(kept_k.shape[:3], -torch.inf)
        outputs = []
        parts_of_q, parts_of_k, parts_of_v, parts_of_score = (Slices(u, dim=2) for u in (q, k, v, score))
        for begin in range(0, q.shape[2], _CHUNK):
            piece = (begin, min(begin + _CHUNK, q.shape[2]))
            keys = torch.cat((kept_k, parts_of_k.take(*piece)), 2)
            values = torch.cat((kept_v, parts_of_v.take(*piece)), 2)
            scores = torch.cat((kept, parts_of_score.take(*piece)), 2)
            best, seen = _best(scores.detach(), kept.shape[2])
            logits = (
                at_least_float32(parts_of_q.take(*piece) @ keys.mT) * k.shape[-1] ** -0.5 + scores[:, :, None]
            )
            weights = logits.masked_fill(~seen, torch.finfo(logits.dtype).min).softmax(-1)
            outputs.append(weights.to(v.dtype) @ values)
            index, empty = best.clamp(min=0), best < 0
            kept = scores.gather(2, index).masked_fill(empty, -torch.inf)
            kept_k, kept_v = (
                u.gather(2, index[..., None].expand_as(kept_k)).masked_fill(empty[..., None], 0)
                for u in (keys, values)
            )
        after = {"selected_k": kept_k, "selected_v": kept_v, "selected_score": kept}
        return torch.cat(outputs, 2).transpose(1, 2), after

    def initial_values(self) -> dict[str, Tensor]:
        """Directions that are drawn once."""
        return {"directions": torch.randn_like(self.directions)}

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: hashes, a bucket, the best keys and those of a chunk; at any length."""
        config, K = self.config, self.config.head_dim
        per_pair = 4 * config.num_hashes + 4 * config.capacity + 4 * (config.num_selected + _CHUNK)
        # The score is a Linear of every scored head, and counted once as a module.
        scores = (config.num_heads // 2 - 1) * 2 * (K * K + K)
        return config.num_heads / 2 * K * per_pair + scores + self.ssm.mixing_flops_per_token(num_tokens)

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: the same at every length."""
        config, half = self.config, self.config.num_heads // 2
        bucket, selected = (1, half, 2 * config.num_hashes), (1, half, config.num_selected)
        room, chosen = (*bucket, config.capacity, config.head_dim), (*selected, config.head_dim)
        ssm = {f"ssm_{name}": one for name, one in self.ssm.state_layout(num_tokens, dtype).items()}
        keys = empty_state(dtype, bucket_k=room, bucket_v=room, selected_k=chosen, selected_v=chosen)
        scores = empty_state(torch.promote_types(dtype, torch.float32), selected_score=selected)
        return {**ssm, **keys, **scores, **empty_state(torch.int64, bucket_size=bucket)}


def _best(scores: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Find the `num` best of the scores `[N, H, num + C]` (-inf: no key) up to each of the last C.

    Returns: indices of the best after the last one, ascending, -1 for none `[N, H, num]`; bool `[N, H, C, num + C]`.
    """
    total = scores.shape[-1]
    chunk = total - num
    index = torch.arange(total, device=scores.device)
    read = index <= num + torch.arange(chunk, device=scores.device)[:, None]
    so_far = scores[:, :, None].expand(-1, -1, chunk, -1).masked_fill(~read, -torch.inf)
    # Newest first, so that a stable sort puts the newer of two equal scores first.
    order = total - 1 - so_far.flip(-1).sort(dim=-1, descending=True, stable=True).indices
    best = order[..., :num]
    seen = torch.zeros_like(so_far, dtype=torch.bool).scatter(-1, best, True) & (so_far > -torch.inf)
    last = best[:, :, -1]
    there = seen[:, :, -1].gather(2, last)
    return torch.where(there, last, -1).sort(dim=-1).values, seen
