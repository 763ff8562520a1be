"""Combiner (arXiv 2107.05768): full attention as a conditional expectation, factored over regions of the past.

    p(j | i) = p(region | i) p(j | region);   p(region | i) = softmax of q_i . (max over the region of k)
    p(j | region) = softmax over the region of (max over the region of q) . k_j / sqrt(K), the same for every i
    y = Linear(sum over regions of p(region | i) sum over j of p(j | region) v_j)

Tokens near i are regions of their own (direct attention), all in one softmax; every past token counts.

    fixed:      finished blocks of `region_size` are regions, tokens of the unfinished block stand for themselves
    logsparse:  the unfinished block is cut as its length is written in binary: into at most log2(region_size) regions

As in the authors' code: the factorisation, max pooling of keys and queries (one of its options), logsparse regions that
lie on a grid, so that queries share them, one for every bit of a query's position. Its third pattern, axial, is not
built. Ours: rotary positions, a region at its last token; and logsparse regions of up to `region_size` only, where the
code's grow with the text: the cost is that of T / region_size + log2(region_size) keys per query. With a region size of
1 both are full attention exactly.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from longlode.core.errors import ConfigError
from longlode.mixers.attention import rotate
from longlode.mixers.base import Mixer, setting
from longlode.mixers.document_rows import pick
from longlode.mixers.norm import at_least_float32
from longlode.mixers.summary_attention import Summaries, SummaryAttention, SummaryAttentionConfig, Tokens


@dataclass(frozen=True, kw_only=True)
class CombinerConfig(SummaryAttentionConfig):
    """Attention factored over regions of the past (arXiv 2107.05768)."""

    name = "combiner"

    pattern: str = setting('"fixed" or "logsparse".', "fixed")

    def __post_init__(self) -> None:
        """See `MixerConfig`; logsparse regions are halved down to one token."""
        super().__post_init__()
        if self.pattern not in ("fixed", "logsparse"):
            raise ConfigError(f"pattern is {self.pattern!r}; expected fixed or logsparse.")
        if self.pattern == "logsparse" and self.region_size & (self.region_size - 1):
            raise ConfigError(
                f"region_size is {self.region_size}; the logsparse pattern expects a power of two."
            )

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> Mixer:
        """See `MixerConfig.build`."""
        return (
            Combiner(self, hidden_size) if self.pattern == "fixed" else LogsparseCombiner(self, hidden_size)
        )


class Combiner(SummaryAttention):
    """Attention whose summaries are expectations; the fixed pattern."""

    def summarise(self, q: Tensor, k: Tensor, v: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """See `SummaryAttention.summarise`."""
        logits = (q.amax(2, keepdim=True) * k).sum(-1, keepdim=True) * k.shape[-1] ** -0.5
        weights = at_least_float32(logits).softmax(2).to(v.dtype)
        return rotate(k.amax(2), place[:, :, -1], self.config.rope_theta), (weights * v).sum(2)


class LogsparseCombiner(Combiner):
    """The logsparse pattern: the unfinished block as regions of falling sizes."""

    def _attend(self, tokens: Tokens, summaries: Summaries) -> Tensor:
        """See `SummaryAttention._attend`: scores with the finished blocks, and with one region of every size below."""
        kept, theta, g = tokens.num_kept, self.config.rope_theta, self.config.region_size
        here = tokens.place[:, kept:]
        q = rotate(tokens.q[:, kept:], here, theta)
        near_k, near_v, seen = [rotate(tokens.k[:, kept:], here, theta)], [tokens.v[:, kept:]], [here >= 0]
        size = g // 2
        while size:
            keys, values, there = self._level(tokens, here, size)
            near_k.append(keys)
            near_v.append(values)
            seen.append(there)
            size //= 2
        scale = q.shape[-1] ** -0.5
        near = torch.stack([(q * keys).sum(-1) for keys in near_k], dim=-1).transpose(1, 2)
        near = near.masked_fill(~torch.stack(seen, dim=-1)[:, None], -torch.inf)
        region = torch.arange(summaries.k.shape[1], device=q.device)
        far = q.transpose(1, 2) @ summaries.k.permute(0, 2, 3, 1)
        far = far.masked_fill(region >= (here // g)[:, None, :, None], -torch.inf)
        weights = at_least_float32(torch.cat((far, near), dim=-1) * scale).softmax(-1).to(q.dtype)
        far, near = weights.split([far.shape[-1], near.shape[-1]], dim=-1)
        o = (far @ summaries.v.transpose(1, 2)).transpose(1, 2)
        return o + (near.transpose(1, 2)[..., None] * torch.stack(near_v, dim=3)).sum(3)

    def _level(self, tokens: Tokens, here: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Key and value `[N, T, H, K]` of the one region of `size` tokens that each token sees, and whether it sees it.

        It sees one if its place in the block, in binary, has the bit of that size; the region then begins where the
        bits from there down are zero.
        """
        g = self.config.region_size
        first = tokens.start // g * g
        count = (here.shape[1] + g - 1) // size + 1
        grid = first[:, None] + size * torch.arange(count, device=here.device)
        keys, values = self.regions(tokens, grid, size)
        index = (here - here % (2 * size) - first[:, None]) // size
        return pick(keys, index), pick(values, index), here % g & size > 0

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: 4 K per head for finished blocks and for a region of every size."""
        g = self.config.region_size
        mean_blocks = sum(p // g for p in range(num_tokens)) / num_tokens
        visible = mean_blocks + 2 * (g.bit_length() - 1) + 2
        return 4 * self.config.num_heads * self.config.head_dim * visible
