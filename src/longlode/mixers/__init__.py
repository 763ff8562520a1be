"""mixers: the layers that move information between tokens, behind one interface.

May import: core, ops.
Start reading: `base.py` (the interface and its laws), then `delta_net.py`; `stack.py` reads "DS*12".
"""

from longlode.mixers.attention import FullAttention, SlidingWindowAttention
from longlode.mixers.base import Mixer, MixerSettings, State
from longlode.mixers.delta_net import DeltaNet, GatedDeltaNet
from longlode.mixers.norm import RMSNorm
from longlode.mixers.stack import MIXERS, parse_stack

__all__ = [
    "MIXERS",
    "DeltaNet",
    "FullAttention",
    "GatedDeltaNet",
    "Mixer",
    "MixerSettings",
    "RMSNorm",
    "SlidingWindowAttention",
    "State",
    "parse_stack",
]
