"""mixers: the layers that move information between tokens, behind one interface.

May import: core, ops.
Start reading: `base.py` (the interface and its laws), then `delta_net.py`; `context.py` (documents, padding and
positions of a forward pass); `stack.py` reads "DS*12".

Every module here that defines a `MixerConfig` with a name adds a mixer; there is no list to edit.
"""

from longlode.core.plugins import Registry
from longlode.mixers.attention import FullAttention, SlidingWindowAttention
from longlode.mixers.base import (
    Mixer,
    MixerConfig,
    MixerOutput,
    MixerTraits,
    ParameterRule,
    State,
    rules_of,
    setting,
)
from longlode.mixers.context import ONE_RANK, SequenceContext, SequenceShard
from longlode.mixers.delta_net import DeltaNet, GatedDeltaNet
from longlode.mixers.gated_linear_attention import GatedLinearAttention
from longlode.mixers.linear_attention import LinearAttention
from longlode.mixers.mamba2 import Mamba2
from longlode.mixers.norm import RMSNorm
from longlode.mixers.segment_map import SegmentMap
from longlode.mixers.stack import LETTERS, parse_stack

MIXERS: Registry[MixerConfig] = Registry(
    "mixer",
    MixerConfig,  # type: ignore[type-abstract]
    package="longlode.mixers",
    group="longlode.mixers",
)
"""The configs of all mixers, by name."""

__all__ = [
    "LETTERS",
    "MIXERS",
    "ONE_RANK",
    "DeltaNet",
    "FullAttention",
    "GatedDeltaNet",
    "GatedLinearAttention",
    "LinearAttention",
    "Mamba2",
    "Mixer",
    "MixerConfig",
    "MixerOutput",
    "MixerTraits",
    "ParameterRule",
    "RMSNorm",
    "SegmentMap",
    "SequenceContext",
    "SequenceShard",
    "SlidingWindowAttention",
    "State",
    "parse_stack",
    "rules_of",
    "setting",
]
