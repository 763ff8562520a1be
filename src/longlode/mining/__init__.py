"""mining: find the documents of a corpus that hold long-range dependency. Loads no torch.

A reader (any language model behind `Reader`) reads segments of a document alone and after one another; a
scorer turns the readings into a score; the engine does it for a corpus, in units that survive a kill;
select keeps the best.

May import: core, corpus.
Start reading: `dependency.py` (the formulas), then `scorers/base.py` and `engine.py`.
    reader.py, segments.py, sampling.py   what is read: the model's calls, segments, what chance decides
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
from longlode.mining.reader import AttendingReader, ContinuingReader, Reader
from longlode.mining.scorers import (
    SCORERS,
    DocumentScore,
    ExtraColumn,
    PairPlan,
    Scorer,
    SegmentedDocument,
    make_scorer,
)
from longlode.mining.select import SelectSummary, select

__all__ = [
    "SCORERS",
    "AttendingReader",
    "ContinuingReader",
    "DocumentScore",
    "ExtraColumn",
    "PairPlan",
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
