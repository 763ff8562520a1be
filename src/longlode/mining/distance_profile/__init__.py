"""distance_profile: the gain of a document from context at each octave of distance, without a model.

`profile.py` measures the document (formulas in its docstring); `control.py` gives the gain expected from unrelated text
of the same amount, or a substitute for languages without a table; `corpus_text.py` uses the corpus itself. May
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
