"""gate: how surely a document is one text in its own order, in any language.

`reading.py` takes a text apart once; `returns.py`, `links.py`, `passages.py`, `signs.py`, `fluency.py` and
`direction.py` measure it; `features.py` puts the measurements together; `model.py` makes log-odds of them, `fit.py`
its weights. No table of a language is needed. May import: core, corpus, `mining.baselines`, `mining.coherence.order`.
Start with `features.py`.
"""

from longlode.mining.gate.features import measure
from longlode.mining.gate.model import Gate, Verdict
from longlode.mining.gate.reading import Reading

__all__ = ["Gate", "Reading", "Verdict", "measure"]
