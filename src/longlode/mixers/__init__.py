"""mixers: the layers that move information between tokens, behind one interface.

May import: core, ops.
Start reading: `base.py` (the interface and its laws), then `delta_net.py`; `stack.py` reads "DS*12".
"""

from longlode.mixers.attention import FullAttention, SlidingWindowAttention
from longlode.mixers.base import Mixer, MixerSettings, State
from longlode.mixers.delta_net import DeltaNet, GatedDeltaNet
from longlode.mixers.gated_linear_attention import GatedLinearAttention
from longlode.mixers.linear_attention import LinearAttention
from longlode.mixers.mamba2 import Mamba2
from longlode.mixers.norm import RMSNorm
from longlode.mixers.stack import MIXERS, parse_stack

__all__ = [
    "MIXERS",
    "DeltaNet",
    "FullAttention",
    "GatedDeltaNet",
    "GatedLinearAttention",
    "LinearAttention",
    "Mamba2",
    "Mixer",
    "MixerSettings",
    "RMSNorm",
    "SlidingWindowAttention",
    "State",
    "parse_stack",
]
