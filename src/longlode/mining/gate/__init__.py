"""gate: the log-odds that a document is one text in its own order, in any language.

`parsed_text.py` parses a text once; `returns.py`, `links.py`, `passages.py`, `signs.py`, `fluency.py` and
`direction.py` measure it; `features.py` collects the measurements; `model.py` turns them into log-odds, `fit.py`
fits its weights. No table of a language is needed.

May import: core, corpus, `mining.baselines`, `mining.coherence.order`. Start with `features.py`.
"""

from longlode.mining.gate.features import measure
from longlode.mining.gate.model import Gate, Verdict
from longlode.mining.gate.parsed_text import ParsedText

__all__ = ["Gate", "ParsedText", "Verdict", "measure"]
