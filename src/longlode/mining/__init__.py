"""mining: find the documents of a corpus that hold long-range dependency. Loads no torch.

A reader (any language model behind `Reader`) reads segments of a document alone and after one another; an
scorer turns the readings into a score; the engine does it for a corpus, in units that survive a kill;
select keeps the best.

May import: core, corpus.
Start reading: `dependency.py` (the formulas), then `scorers/base.py` and `engine.py`.
    reader.py, segments.py, sampling.py   what is read: the model's three calls, segments, what chance decides
    scorers/                           what the readings mean, one file each
    extras.py                             columns of a scorer's own
    order.py, seams.py, background.py     what the default score is made of: order, cuts, words of text at large
    coherence.py                          the default score: features, factors, weights
    baselines.py, announcements.py        signals without a model; the words behind the order contrast
    settings.py, reading.py, work.py      one unit: batches across documents, one row per document
    parts.py, part_queries.py, workers.py, summary.py   results on disk, read by SQL; processes; the record
    standings.py, race.py, race_rounds.py racing: no more pairs of a document than its decision takes
    select.py                             from scores to a smaller corpus
"""

from longlode.mining.engine import ScoreSummary, score
from longlode.mining.race import check_raceable, race
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
from longlode.mining.settings import ScoreSettings
from longlode.mining.standings import RaceRule

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
