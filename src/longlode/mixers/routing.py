"""Routing attention (arXiv 2003.05997): tokens see those of their cluster, clusters learned by online k-means.

    k = LayerNorm(Linear(x)) / sqrt(K), without weights; queries are keys;   v = Linear(x)
    cluster of t = argmax over centroids of k_t . centroid;   o_t = softmax attention in the cluster, positions rotary
    y = Linear(o) + sliding-window attention of as many other heads

mode = "strict" is causal: a token belongs to its nearest centroid and sees the last `capacity` tokens of the cluster.
mode = "published" is not: every centroid takes the `capacity` tokens of the whole text that are nearest to it, and
attention inside a cluster is masked by time; a nearer later token replaces an earlier one. A text must then be
read whole: a state is refused, and the model's loss is too low (`traits.causal` is "no").

As in the authors' code: shared queries and keys (an option there), LayerNorm without weights, the mean of a token's
outputs where several centroids took it, half of the heads local. Different: scores are divided by sqrt(K), as in
attention, where the code's reach K; a token reads itself only where its cluster has nothing else (Reformer, arXiv
2001.04451), where the code's always does; centroids move by the gradient of their squared distance to the keys (the
loss `k_means`, whose plain gradient step is the moving average), so that a forward pass changes nothing, and keys are
not drawn to them (a weight of 1e-4 there); positions are rotary.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from longlode.core.errors import ConfigError
from longlode.mixers.attention import SlidingWindowAttention, SlidingWindowAttentionConfig, rotate
from longlode.mixers.base import (
    Mixer,
    MixerConfig,
    MixerOutput,
    MixerTraits,
    ParameterRule,
    State,
    empty_state,
    setting,
)
from longlode.mixers.bucket_attention import Buckets, bucket_attention
from longlode.mixers.context import SequenceContext
from longlode.mixers.document_rows import DocumentRows
from longlode.mixers.norm import at_least_float32


@dataclass(frozen=True, kw_only=True)
class RoutingConfig(MixerConfig):
    """Attention inside learned clusters beside local attention (arXiv 2003.05997)."""

    name = "routing"

    num_heads: int = setting("H, heads; half of them are local.", least=2, shared="attn_num_heads num_heads")
    head_dim: int = setting("K = V, width of a head.", least=1, shared="attn_head_dim head_dim")
    num_clusters: int = setting("Centroids of each head.", 8, least=1)
    capacity: int = setting("Tokens that a token sees of its cluster, itself included.", 32, least=1)
    mode: str = setting('"strict" or "published".', "strict")
    window: int = setting("Tokens that local heads see.", 256, least=1, shared="window")
    rope_theta: float = setting("Base of the rotary frequencies.", 10000.0, shared="rope_theta")
    aux_weight: float = setting("Weight of the k-means loss.", 0.1, least=0)

    def __post_init__(self) -> None:
        """See `MixerConfig`; heads are halved, rotary positions need pairs."""
        super().__post_init__()
        if self.num_heads % 2 or self.head_dim % 2:
            raise ConfigError(
                f"routing has {self.num_heads} heads of {self.head_dim} numbers; expected even counts of both."
            )
        if self.mode not in ("strict", "published"):
            raise ConfigError(f"mode is {self.mode!r}; expected strict or published.")

    @property
    def local(self) -> SlidingWindowAttentionConfig:
        """Settings of the local heads."""
        return SlidingWindowAttentionConfig(
            num_heads=self.num_heads // 2,
            head_dim=self.head_dim,
            window=self.window,
            rope_theta=self.rope_theta,
        )

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> Mixer:
        """See `MixerConfig.build`."""
        return (Routing if self.mode == "strict" else PublishedRouting)(self, hidden_size)


class Routing(Mixer):
    """The strict mode: buckets are clusters."""

    traits = MixerTraits()

    def __init__(self, config: RoutingConfig, hidden_size: int) -> None:
        """Projections of keys and values, centroids, local heads."""
        super().__init__()
        self.config = config
        inner = config.num_heads // 2 * config.head_dim
        self.k_proj = nn.Linear(hidden_size, inner, bias=False)
        self.v_proj = nn.Linear(hidden_size, inner, bias=False)
        self.centroids = nn.Parameter(
            torch.empty(config.num_heads // 2, config.num_clusters, config.head_dim)
        )
        self.o_proj = nn.Linear(inner, hidden_size, bias=False)
        self.local = SlidingWindowAttention(config.local, hidden_size)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`.

        State: cluster_k (rotated), cluster_v `[N, H / 2, clusters, capacity - 1, K]` and cluster_size; position; that
        of the local heads as local_*.
        """
        context, before = context or SequenceContext.of(x), state or {}
        rows = DocumentRows(context)
        x = rows.take(x)
        local_before = {name[6:]: one for name, one in before.items() if name.startswith("local_")}
        near = self.local(x, local_before or None, rows.context)
        shape = (*x.shape[:2], self.config.num_heads // 2, self.config.head_dim)
        k = functional.layer_norm(self.k_proj(x).view(shape), shape[-1:]) * shape[-1] ** -0.5
        closeness = torch.einsum("nthk,hck->nthc", k, self.centroids.to(k.dtype))
        o, after = self._mix(k, self.v_proj(x).view(shape), closeness, rows, before)
        y = near.y + self.o_proj(o.flatten(-2))
        after |= {f"local_{name}": one for name, one in near.state.items()}
        losses, metrics = self._k_means(k, closeness, rows.real)
        return MixerOutput(rows.put(y), after, losses, metrics)

    def _mix(
        self, k: Tensor, v: Tensor, closeness: Tensor, rows: DocumentRows, before: State
    ) -> tuple[Tensor, State]:
        """Outputs of the routed heads `[N, T, H / 2, K]`, and their state."""
        start = before["position"] if before else torch.zeros_like(rows.lengths)
        cluster, turned = closeness.argmax(-1), self._turn(k, start)
        if before:
            kept = Buckets(before["cluster_k"], before["cluster_v"], before["cluster_size"])
        else:
            kept = Buckets.empty(k, self.config.num_clusters, self.config.capacity - 1)
        o, kept = bucket_attention(turned, turned, v, cluster, cluster, rows.real, kept, shared=True)
        after = {"cluster_k": kept.k, "cluster_v": kept.v, "cluster_size": kept.size}
        return o, {**after, "position": start + rows.lengths}

    def _turn(self, k: Tensor, start: Tensor) -> Tensor:
        """Rotate and scale keys so that a score is sqrt(K) times a cosine."""
        position = start[:, None] + torch.arange(k.shape[1], device=k.device)
        return rotate(k, position, self.config.rope_theta) * self.config.head_dim**0.5

    def _k_means(
        self, k: Tensor, closeness: Tensor, real: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Half the mean squared distance of keys to their centroids, for the centroids; the share of the largest."""
        choice = functional.one_hot(closeness.argmax(-1), self.config.num_clusters).to(k.dtype)
        near = torch.einsum("nthc,hck->nthk", choice, self.centroids.to(k.dtype))
        weight = real[..., None].to(k.dtype) / (real.sum().clamp(min=1) * k.shape[2])
        loss = 0.5 * (weight * (near - k.detach()).square().sum(-1)).sum()
        largest = (choice * weight[..., None]).sum((0, 1, 2)).max().detach()
        return {"k_means": self.config.aux_weight * loss}, {"largest_cluster": largest}

    def initial_values(self) -> dict[str, Tensor]:
        """Centroids on the sphere of the keys."""
        return {"centroids": functional.normalize(torch.randn_like(self.centroids), dim=-1)}

    def parameter_rules(self) -> dict[str, ParameterRule]:
        """See `Mixer.parameter_rules`: centroids do not decay."""
        return {**super().parameter_rules(), "centroids": ParameterRule(decays=False)}

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: all centroids twice, capacity keys and values, the local heads."""
        per_head = 4 * self.config.head_dim * (self.config.num_clusters + self.config.capacity)
        return self.config.num_heads / 2 * per_head + self.local.mixing_flops_per_token(num_tokens)

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: the clusters' newest keys and values, and the local heads' window."""
        counts = (1, self.config.num_heads // 2, self.config.num_clusters)
        room = (*counts, self.config.capacity - 1, self.config.head_dim)
        local = {f"local_{name}": one for name, one in self.local.state_layout(num_tokens, dtype).items()}
        own = empty_state(torch.int64, cluster_size=counts, position=(1,))
        return empty_state(dtype, cluster_k=room, cluster_v=room) | own | local


class PublishedRouting(Routing):
    """The published mode: centroids choose among all tokens of a text."""

    traits = replace(Routing.traits, causal="no", steps=False)

    def _mix(
        self, k: Tensor, v: Tensor, closeness: Tensor, rows: DocumentRows, before: State
    ) -> tuple[Tensor, State]:
        if before:
            raise ConfigError(
                "Routing attention in its published mode chooses among all tokens of a text and cannot go on from "
                'a state; expected the text in one piece. Set mode = "strict" to generate or to read in pieces.'
            )
        size = min(self.config.capacity, k.shape[1])
        ranked = closeness.permute(0, 2, 3, 1).masked_fill(~rows.real[:, None, None], -torch.inf)
        chosen = ranked.topk(size, dim=-1).indices.sort(dim=-1).values
        N, H, C, _ = chosen.shape
        turned = self._turn(k, torch.zeros_like(rows.lengths)).transpose(1, 2)
        index = chosen.flatten(2)[..., None].expand(N, H, C * size, k.shape[-1])
        keys, values = (u.gather(2, index).view(N, H, C, size, -1) for u in (turned, v.transpose(1, 2)))
        real = rows.real[:, None, None].expand(N, H, C, -1).gather(3, chosen)
        logits = at_least_float32(keys @ keys.mT * k.shape[-1] ** -0.5)
        logits = logits - 5e4 * torch.eye(size, dtype=logits.dtype, device=k.device)
        seen = torch.ones(size, size, dtype=torch.bool, device=k.device).tril() & real[..., None, :]
        logits = logits.masked_fill(~seen, torch.finfo(logits.dtype).min)
        o = logits.softmax(-1).to(v.dtype) @ values * real[..., None]
        total = torch.zeros_like(turned).scatter_add(2, index, o.flatten(2, 3))
        count = torch.zeros_like(turned).scatter_add(
            2, index, real.flatten(2)[..., None].expand_as(index).to(o.dtype)
        )
        return (total / count.clamp(min=1)).transpose(1, 2), {"position": rows.lengths}

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: capacity^2 pairs in every cluster."""
        C, size = self.config.num_clusters, min(self.config.capacity, num_tokens)
        per_head = 4 * self.config.head_dim * (C + C * size * size / num_tokens)
        return self.config.num_heads / 2 * per_head + self.local.mixing_flops_per_token(num_tokens)

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: a count, and the local heads' window; neither is gone on from."""
        layout = super().state_layout(num_tokens, dtype)
        return {name: one for name, one in layout.items() if not name.startswith("cluster")}
