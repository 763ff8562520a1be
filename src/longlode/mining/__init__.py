"""mining: find the documents of a corpus that hold long-range dependency. Loads no torch.

A scorer asks for what is to be read of a document, a reader (any language model behind `Reader`) reads it, and the
scorer turns the readings into a score; the engine does it for a corpus, in units that survive a kill;
select keeps the best.

May import: core, corpus.
Start reading: `dependency.py` (the formulas), then `scorers/base.py` and `engine.py`.
    reader.py, requests/                  what a reader can do; what a scorer can ask for
    segments.py, sampling.py              what is read: segments, and what chance decides
    scorers/                              what the readings mean, one file each
    gate/, distance_profile/              the profile score, taken unless another is named: is this one text; what
                                          far context is worth
    coherence/                            the coherence score: order, boundaries, words of general text
    baselines.py, extras.py               signals without a model; columns of a scorer's own
    engine/                               units of work, worker processes, results on disk
    racing/                               no more pairs of a document than its decision takes
    select.py, selection_files.py         from scores to a smaller corpus
"""

from longlode.mining.engine.run import ScoreSummary, score
from longlode.mining.engine.settings import ScoreSettings
from longlode.mining.racing.race import check_raceable, race
from longlode.mining.racing.standings import RaceRule
from longlode.mining.reader import Reader
from longlode.mining.scorers import (
    SCORERS,
    DocumentScore,
    ExtraColumn,
    Scorer,
    SegmentedDocument,
    make_scorer,
)
from longlode.mining.select import SelectSummary, select

__all__ = [
    "SCORERS",
    "DocumentScore",
    "ExtraColumn",
    "RaceRule",
    "Reader",
    "ScoreSettings",
    "ScoreSummary",
    "Scorer",
    "SegmentedDocument",
    "SelectSummary",
    "check_raceable",
    "make_scorer",
    "race",
    "score",
    "select",
]
