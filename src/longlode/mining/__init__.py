"""mining: find the documents of a corpus that hold long-range dependency. Loads no torch.

A scorer requests readings of a document, a reader (any language model behind `Reader`) makes them, and the scorer turns
them into a score; the engine does so for a corpus, in units of work that survive a kill; select keeps the best
documents.

May import: core, corpus.
Start reading: `dependency.py` (the formulas), then `scorers/base.py` and `engine/run.py`.
    reader.py, requests/                  capabilities of readers; requests of scorers
    segments.py, sampling.py              segments of a document, and random draws
    scorers/                              scores from readings, one file per scorer
    gate/, distance_profile/              the profile score, the default: is the document one text; the gain from
                                          far context
    coherence/                            the coherence score: order, boundaries, words of general text
    baselines.py, extras.py               signals without a model; columns of a scorer's own
    engine/                               units of work, worker processes, results on disk
    racing/                               only as many pairs per document as its decision needs
    select.py, selection_files.py         from scores to a smaller corpus
"""

from longlode.mining.engine.outcome import ScoreSummary
from longlode.mining.engine.run import score
from longlode.mining.engine.settings import ScoreSettings
from longlode.mining.engine.tally import RunProgress
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
    "RunProgress",
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
