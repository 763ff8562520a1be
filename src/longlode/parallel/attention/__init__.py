"""Attention schemes: how softmax attention reads a sequence that lies on several ranks, one file each.

May import: core, ops, mixers, the plan and exchanges of parallel. Start reading: `base.py` (the interface), then
`gather.py`.
"""

from longlode.core.errors import ConfigError
from longlode.parallel.attention.base import AttentionScheme, AttentionSizes
from longlode.parallel.attention.gather import GatherAttention
from longlode.parallel.attention.online import keep_attention_outputs
from longlode.parallel.attention.ring import RingAttention
from longlode.parallel.attention.ring_balanced import RingBalancedAttention
from longlode.parallel.attention.ring_scores import RingScoresAttention
from longlode.parallel.attention.ulysses import UlyssesAttention

ATTENTION_SCHEMES: dict[str, type[AttentionScheme]] = {
    scheme.name: scheme
    for scheme in (
        GatherAttention,
        RingAttention,
        RingBalancedAttention,
        RingScoresAttention,
        UlyssesAttention,
    )
}
"""The schemes by name, the values of the setting `parallel.attention`."""


def make_scheme(name: str) -> AttentionScheme:
    """Make a scheme by name. Raises: ConfigError that lists the names."""
    if name not in ATTENTION_SCHEMES:
        raise ConfigError(f"parallel.attention is {name!r}; expected one of {', '.join(ATTENTION_SCHEMES)}.")
    return ATTENTION_SCHEMES[name]()


__all__ = [
    "ATTENTION_SCHEMES",
    "AttentionScheme",
    "AttentionSizes",
    "GatherAttention",
    "RingAttention",
    "RingBalancedAttention",
    "RingScoresAttention",
    "UlyssesAttention",
    "keep_attention_outputs",
    "make_scheme",
]
