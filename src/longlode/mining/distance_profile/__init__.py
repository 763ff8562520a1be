"""distance_profile: what context at each octave of distance is worth to a document, without a model.

`profile.py` measures the document (formulas in its docstring); `control.py` says what as much foreign text would have
given, and what to take instead where the language has no table; `corpus_text.py` takes the corpus itself. May
import: core, corpus, `mining.baselines`, `mining.coherence.order`. Start with `profile.py`.
"""

from longlode.mining.distance_profile.control import Control, ForeignControl, ForeignText, OwnControl
from longlode.mining.distance_profile.profile import (
    OCTAVES,
    Octave,
    Profile,
    distance_profile,
)

__all__ = [
    "OCTAVES",
    "Control",
    "ForeignControl",
    "ForeignText",
    "Octave",
    "OwnControl",
    "Profile",
    "distance_profile",
]
