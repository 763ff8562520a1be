"""Prefix linear attention, the mixer of JRT-RNN (arXiv 2407.05483): a prompt is read in both directions.

    S_t = sum over j <= t of k_j v_j^T  +  sum over the prefix of e_j u_j^T;   y = Linear(RMSNorm per head (S_t^T q_t))
    q, k, e = elu(Linear(x)) + 1;   v, u = Linear(x);   e and u have projections of their own, as an encoder's

The second sum is the same at every token, so a recurrent model need not know the question before it reads. It
is added to the state before the first token; from then on this is linear attention, at its cost per step.
Without `context.prefix_lengths` there is no prefix.

As in the paper: the second sum, with keys and values of its own. Different: the feature map is that of
`linear_attention.py` instead of Based's Taylor series of exp, and the RMSNorm stands for the normaliser, which it would
cancel as there; windows and convolutions are layers of a stack; the objective `prefix_lm` is the loss after the prefix,
without the paper's masked tokens in it.
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional

from longlode.mixers.base import Mixer, MixerOutput, State, zero_padding
from longlode.mixers.context import SequenceContext
from longlode.mixers.linear_attention import LinearAttention, LinearAttentionConfig, additive_map


@dataclass(frozen=True, kw_only=True)
class PrefixLinearAttentionConfig(LinearAttentionConfig):
    """Linear attention that reads a prefix in both directions (arXiv 2407.05483)."""

    name = "prefix_linear_attention"

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> Mixer:
        """See `MixerConfig.build`."""
        return PrefixLinearAttention(self, hidden_size)


class PrefixLinearAttention(LinearAttention):
    """Linear attention whose memory contains the whole prefix from the first token on."""

    traits = replace(LinearAttention.traits, causal="after the prefix")

    def __init__(self, config: PrefixLinearAttentionConfig, hidden_size: int) -> None:
        """Make the projections of linear attention, and those of the prefix's keys and values."""
        super().__init__(config, hidden_size)
        inner = config.num_heads * config.head_dim
        self.prefix_k_proj = nn.Linear(hidden_size, inner, bias=False)
        self.prefix_v_proj = nn.Linear(hidden_size, inner, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`. State: memory `[N, H, K, V]`, prefix included; it must not be read in several calls."""
        context = context or SequenceContext.of(x)
        x = zero_padding(x, context.mask)
        memory = (state or {}).get("memory")
        if context.prefix is not None:
            prefix = self._prefix_memory(x, context)
            memory = prefix if memory is None else memory + prefix
        return self._mix(x, memory, context)

    def _prefix_memory(self, x: Tensor, context: SequenceContext) -> Tensor:
        """Compute the second sum of every document, over all parts of it, `[N, H, K, V]`."""
        shape = (*x.shape[:2], self.config.num_heads, self.config.head_dim)
        keys = functional.elu(self.prefix_k_proj(x).view(shape)) + 1
        # A zero key writes nothing.
        keys = keys.masked_fill(~context.prefix[..., None, None], 0)  # type: ignore[index]
        here = additive_map(keys, self.prefix_v_proj(x).view(shape), None, context).added
        return context.shard.document_total(here)
