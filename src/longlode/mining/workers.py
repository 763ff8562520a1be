"""What does a unit: makes its scorer once, scores, and writes the part."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longlode.core.errors import LonglodeError, ScorerError
from longlode.corpus import Unit
from longlode.mining.dependency import FORMULAS_VERSION
from longlode.mining.estimators import Estimator
from longlode.mining.parts import PART_FORMAT, PartInfo, part_path, write_part
from longlode.mining.reading import BatchSize
from longlode.mining.scorer import Scorer, ThreadedScorer
from longlode.mining.settings import ScoreSettings
from longlode.mining.work import Work, score_unit


@dataclass(frozen=True)
class Task:
    """One unit to do, and the fingerprint that names its part.

    rows: as of `score_unit`, None for all of them. estimator: in place of the run's, one that reads in the same way.
    """

    unit: Unit
    fingerprint: str
    rows: tuple[int, ...] | None = None
    estimator: Estimator | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its part's info, or an error text. size: the batch sizes the worker has come
    down to.
    """

    task: Task
    info: PartInfo | None
    error: str = ""
    size: BatchSize | None = None


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker needs besides its tasks; picklable when make_scorer is."""

    out: Path
    estimator: Estimator
    settings: ScoreSettings
    make_scorer: Callable[[], Scorer] | None
    scorer_fingerprint: str

    def identity(self, estimator: Estimator | None = None) -> dict[str, Any]:
        """Everything but the unit that shapes a part, as JSON. Args: estimator, of a task that has its own."""
        estimator = estimator or self.estimator
        return {
            "settings": self.settings.identity(),
            "estimator": {
                "name": estimator.name,
                "version": estimator.version,
                "options": estimator.options(),
            },
            "scorer": self.scorer_fingerprint if estimator.needs_scorer else None,
            "threads": self.settings.threads if estimator.reads_model else None,
            "formulas_version": FORMULAS_VERSION,
            "part_format": PART_FORMAT,
        }


class Worker:
    """Makes its scorer at the first task and keeps it."""

    def __init__(self, spec: WorkerSpec) -> None:
        """Load nothing yet."""
        self._spec = spec
        self._work: Work | None = None

    def run(self, task: Task) -> Outcome:
        """Do one unit and write its part. Raises: ScorerError when there is no usable scorer; nothing
        else.
        """
        if self._work is None:
            settings = self._spec.settings
            size = BatchSize(settings.batch_segments, settings.batch_pairs)
            self._work = Work(self._spec.estimator, settings, self._make_scorer(), size)
        try:
            work = self._work if task.estimator is None else replace(self._work, estimator=task.estimator)
            result = score_unit(task.unit, work, task.rows)
            info = PartInfo(
                fingerprint=task.fingerprint,
                num_rows=len(result.rows),
                document_tokens=result.document_tokens,
                tokens_alone=result.tokens_alone,
                tokens_given=result.tokens_given,
            )
            path = part_path(self._spec.out, task.fingerprint)
            write_part(path, result.rows, info, keep_pairs=self._spec.settings.keep_pairs)
        except Exception as error:  # this unit failed; the others go on, and a re-run tries it again
            return Outcome(task, None, f"{type(error).__name__}: {error}", self._work.size)
        return Outcome(task, info, "", self._work.size)

    def _make_scorer(self) -> Scorer | None:
        spec = self._spec
        if not spec.estimator.needs_scorer or spec.make_scorer is None:
            return None
        try:
            scorer = spec.make_scorer()
        except LonglodeError:
            raise
        except Exception as error:
            raise ScorerError(f"the scorer could not be made: {type(error).__name__}: {error}") from error
        if scorer.fingerprint != spec.scorer_fingerprint:
            raise ScorerError(
                f"make_scorer gave the scorer {scorer.fingerprint!r}; expected {spec.scorer_fingerprint!r}, "
                "by which results are named. Pass the fingerprint of the scorer that make_scorer makes."
            )
        if isinstance(scorer, ThreadedScorer):
            scorer.use_threads(spec.settings.threads)
        return scorer
