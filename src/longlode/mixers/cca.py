"""Core context aware attention, CCA (arXiv 2412.12465): one core token for every finished group, and a local window.

    core of a group = sum over its tokens j of softmax_j(q_last . k_j / sqrt(K)) (k_j, v_j), q_last of its last token,
                      queries and keys rotated by their positions
    y = Linear(softmax over the cores of the groups before the window and the tokens of the window)

The window holds at least `window` tokens and begins where a group does (`summary_attention.py`), so that cores and
window together hold every past token once; the cost is that of T / g + window + g keys per query.

As in the authors' code: significance by the last query of the group, per head; keys pooled after rotation, so a core
has the mean position of its tokens; the groups and tokens that a query sees; one softmax over both parts; no
parameters beside attention's. Different: a head of keys for each head of queries.
"""

from dataclasses import dataclass

from torch import Tensor

from longlode.mixers.attention import rotate
from longlode.mixers.base import Mixer, setting
from longlode.mixers.norm import at_least_float32
from longlode.mixers.summary_attention import SummaryAttention, SummaryAttentionConfig


@dataclass(frozen=True, kw_only=True)
class CCAConfig(SummaryAttentionConfig):
    """Attention over core tokens of groups and a local window (arXiv 2412.12465)."""

    name = "cca"

    window: int = setting("Tokens that a token sees one by one at least, itself included.", 64, least=1)

    @property
    def recent_tokens(self) -> int:
        """See `SummaryAttentionConfig.recent_tokens`."""
        return self.window

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> Mixer:
        """See `MixerConfig.build`."""
        return CCA(self, hidden_size)


class CCA(SummaryAttention):
    """Attention whose summaries are core tokens."""

    def summarise(self, q: Tensor, k: Tensor, v: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """See `SummaryAttention.summarise`."""
        # `rotate` takes one list of positions per row.
        q, k = (rotate(u.flatten(1, 2), place.flatten(1), self.config.rope_theta).view_as(u) for u in (q, k))
        logits = (q[:, :, -1:] * k).sum(-1, keepdim=True) * k.shape[-1] ** -0.5
        weights = at_least_float32(logits).softmax(2).to(k.dtype)
        return (weights * k).sum(2), (weights * v).sum(2)
