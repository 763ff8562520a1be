"""Landmark attention (arXiv 2305.16300): one token per block decides how much attention the block gets.

    Blocks of g tokens, by position; the last token of each is its landmark. A query in block b weighs
      by one softmax:    the tokens of its own block up to itself, and the landmarks of the blocks before, w_r
      in each block r:   the g - 1 ordinary tokens j, by a softmax of their own, u_rj
    y = Linear(sum over own tokens of w_j v_j + sum over blocks r < b of w_r sum over j of u_rj v_j)

so a landmark's weight passes on to its block, and a model learns to find blocks by their landmarks. With
`num_retrieved` = n a query reads only the n blocks whose landmarks it scores highest, per head; the landmarks of the
others leave the softmax. With n at least the number of blocks that is the training form exactly.

Landmarks are recognised by position: every g-th token of the text must be a landmark token (one without other use),
which the packer `landmark` inserts, without a loss on it, and `models.landmarks` in generation. The keys of landmarks
are kept in memory, those of all tokens where `token_store` says, also on disk. Different from the paper: a landmark as
a query sees its own block as any token does, and retrieved blocks keep their true positions, which it moves near at
inference, for texts longer than those of the training.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from longlode.mixers.attention import RotaryHeadsConfig, rotate
from longlode.mixers.base import Mixer, MixerOutput, MixerTraits, State, empty_state, setting
from longlode.mixers.context import SequenceContext
from longlode.mixers.document_rows import DocumentRows, append_entries, pick
from longlode.mixers.norm import at_least_float32
from longlode.mixers.token_store import IN_MEMORY, TokenStore

# Queries computed together: their scores, or the blocks that they retrieve, take the most memory.
_QUERIES = 256
_QUERIES_THAT_RETRIEVE = 32


@dataclass(frozen=True, kw_only=True)
class LandmarkConfig(RotaryHeadsConfig):
    """Attention gated by one landmark token per block (arXiv 2305.16300)."""

    name = "landmark"

    block_size: int = setting("g, tokens in a block, its landmark included.", 64, least=2)
    num_retrieved: int | None = setting(
        "Blocks that a query reads beside its own; none: all, as in training.", None, least=1
    )

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> Mixer:
        """See `MixerConfig.build`."""
        return Landmark(self, hidden_size)


class Landmark(Mixer):
    """The mixer described at the top of this file."""

    traits = MixerTraits(constant_state=False, twice_differentiable=True)
    token_store: TokenStore = IN_MEMORY

    def __init__(self, config: LandmarkConfig, hidden_size: int) -> None:
        """Projections of queries, keys, values and outputs, as in attention."""
        super().__init__()
        self.config = config
        inner = config.num_heads * config.head_dim
        self.q_proj = nn.Linear(hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(hidden_size, inner, bias=False)
        self.v_proj = nn.Linear(hidden_size, inner, bias=False)
        self.o_proj = nn.Linear(inner, hidden_size, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`.

        State: k (rotated), v `[N, tokens, H, K]`, by position, in `token_store`; landmark_k `[N, blocks, H, K]`;
        position `[N]`, tokens read.
        """
        context, before = context or SequenceContext.of(x), state or {}
        rows = DocumentRows(context)
        x = rows.take(x)
        start = before["position"] if before else torch.zeros_like(rows.lengths)
        place = start[:, None] + torch.arange(x.shape[1], device=x.device)
        split = (self.config.num_heads, self.config.head_dim)
        q, k = (
            rotate(proj(x).unflatten(-1, split), place, self.config.rope_theta)
            for proj in (self.q_proj, self.k_proj)
        )
        v = self.v_proj(x).unflatten(-1, split)
        if before or self.token_store is not IN_MEMORY:
            none = k[:, :0]
            k, v = (
                self.token_store.append(name, before.get(name, none), start, one, rows.lengths)
                for name, one in (("k", k), ("v", v))
            )
        else:
            longest = x.shape[1] if rows.context.mask is None else int(rows.lengths.max())
            k, v = k[:, :longest], v[:, :longest]
        marks = self._landmarks(k, start, rows, before.get("landmark_k"))
        y = self.o_proj(self._attend(q, k, v, marks, place, int(start.max()) if before else 0).flatten(-2))
        after = {"k": k, "v": v, "landmark_k": marks, "position": start + rows.lengths}
        return MixerOutput(rows.put(y), after)

    def _landmarks(self, k: Tensor, start: Tensor, rows: DocumentRows, before: Tensor | None) -> Tensor:
        """Keys of all landmarks so far `[N, blocks, H, K]`: those before, and those of blocks that this piece ends."""
        g = self.config.block_size
        if before is None:
            finished = rows.lengths // g
            marks = k[:, g - 1 :: g].contiguous()  # in memory, wherever k is
            return (
                marks
                if rows.context.mask is None
                else append_entries(marks, finished, marks[:, :0], 0 * finished)
            )
        done = start // g
        finished = (start + rows.lengths) // g - done
        index = (done[:, None] + torch.arange(int(finished.max()), device=k.device)) * g + g - 1
        return append_entries(before, done, pick(k, index.clamp(max=max(0, k.shape[1] - 1))), finished)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, marks: Tensor, place: Tensor, farthest: int) -> Tensor:
        """Compute outputs `[N, T, H, K]` of queries at positions place `[N, T]`, the first at most `farthest`."""
        g, outputs = self.config.block_size, []
        marks = marks.transpose(1, 2)
        num_blocks = k.shape[1] // g
        retrieves = self.config.num_retrieved is not None and num_blocks > self.config.num_retrieved
        size = _QUERIES_THAT_RETRIEVE if retrieves else _QUERIES
        blocks = [u[:, : num_blocks * g].unflatten(1, (num_blocks, g)).permute(0, 3, 1, 2, 4) for u in (k, v)]
        for begin in range(0, q.shape[1], size):
            part = slice(begin, begin + size)
            here, queries = place[:, part], q[:, part].transpose(1, 2) * q.shape[-1] ** -0.5
            near = here[:, :1] - g + 1 + torch.arange(here.shape[1] + g - 1, device=q.device)
            inside = near.clamp(0, k.shape[1] - 1)
            own_k, own_v = (pick(u, inside).transpose(1, 2) for u in (k, v))
            seen = (near[:, None] // g == here[..., None] // g) & (near[:, None] <= here[..., None])
            # Blocks that end after the last query are not visible.
            most = min(num_blocks, (farthest + begin + here.shape[1] - 1) // g)
            past_k, past_v = (u[:, :, :most] for u in blocks)
            gates = queries @ marks[:, :, :most].mT
            finished = torch.arange(most, device=q.device) < here[..., None] // g
            gates = gates.masked_fill(~finished[:, None], -torch.inf)
            chosen = None
            if self.config.num_retrieved is not None and most > self.config.num_retrieved:
                gates, chosen = gates.topk(self.config.num_retrieved, dim=-1)
            own = (queries @ own_k.mT).masked_fill(~seen[:, None], -torch.inf)
            weights = at_least_float32(torch.cat((own, gates), -1)).softmax(-1).to(v.dtype)
            own, gates = weights.split([own.shape[-1], gates.shape[-1]], dim=-1)
            o = own @ own_v + _from_blocks(queries, past_k[:, :, :, :-1], past_v[:, :, :, :-1], gates, chosen)
            outputs.append(o.transpose(1, 2))
        return torch.cat(outputs, 1)

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: 2 K per landmark before, 4 K per token that is read, on average."""
        g, retrieved = self.config.block_size, self.config.num_retrieved
        mean_blocks = sum(p // g for p in range(num_tokens)) / num_tokens
        read = mean_blocks
        if retrieved is not None:
            read = sum(min(p // g, retrieved) for p in range(num_tokens)) / num_tokens
        own = sum(p % g + 1 for p in range(num_tokens)) / num_tokens
        pairs = 2 * mean_blocks + 4 * (g - 1) * read + 4 * own
        return self.config.num_heads * self.config.head_dim * pairs

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: every key and value, and the keys of landmarks once more."""
        heads = (self.config.num_heads, self.config.head_dim)
        shape, marks = (1, num_tokens, *heads), (1, num_tokens // self.config.block_size, *heads)
        keys = empty_state(dtype, k=shape, v=shape, landmark_k=marks)
        return keys | empty_state(torch.int64, position=(1,))


def _from_blocks(q: Tensor, k: Tensor, v: Tensor, gates: Tensor, chosen: Tensor | None) -> Tensor:
    """sum_r gate_r sum_j softmax_j(q . k_rj) v_rj: `[N, H, T, K]`.

    Args: q `[N, H, T, K]`, scaled; k, v `[N, H, blocks, g - 1, K]`; gates `[N, H, T, R]`, of all blocks or of those
      `chosen`, whose keys are then copied for every query.
    """
    if chosen is None:
        scores = (q @ k.flatten(2, 3).mT).unflatten(-1, k.shape[2:4])
        weights = at_least_float32(scores).softmax(-1).to(v.dtype) * gates[..., None]
        return weights.flatten(-2) @ v.flatten(2, 3)
    N, H, T, R = chosen.shape
    index = chosen.flatten(2)[..., None, None].expand(N, H, T * R, *k.shape[3:])
    keys, values = (u.gather(2, index).view(N, H, T, -1, u.shape[-1]) for u in (k, v))
    scores = (keys @ q[..., None]).view(N, H, T, R, -1)
    weights = at_least_float32(scores).softmax(-1).to(v.dtype) * gates[..., None]
    return (weights.view(N, H, T, 1, -1) @ values)[..., 0, :]
