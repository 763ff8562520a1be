"""What does a unit: makes its reader once, scores, and writes the part."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longlode.core.errors import LonglodeError, ModelError
from longlode.corpus import Unit
from longlode.mining.dependency import FORMULAS_VERSION
from longlode.mining.engine.parts import PART_FORMAT, PartInfo, part_path, write_part
from longlode.mining.engine.reading import BatchSize
from longlode.mining.engine.settings import ScoreSettings
from longlode.mining.engine.work import Work, score_unit
from longlode.mining.reader import Reader, ThreadedReader
from longlode.mining.scorers import Scorer


@dataclass(frozen=True)
class Task:
    """One unit to do, and the fingerprint that names its part.

    rows: as of `score_unit`, None for all of them. scorer: in place of the run's, one that reads in the same way.
    """

    unit: Unit
    fingerprint: str
    rows: tuple[int, ...] | None = None
    scorer: Scorer | None = None


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
    """All that a worker needs besides its tasks; picklable when make_reader is."""

    out: Path
    scorer: Scorer
    settings: ScoreSettings
    make_reader: Callable[[], Reader] | None
    reader_fingerprint: str

    def identity(self, scorer: Scorer | None = None) -> dict[str, Any]:
        """Everything but the unit that shapes a part, as JSON. Args: scorer, of a task that has its own."""
        scorer = scorer or self.scorer
        return {
            "settings": self.settings.identity(),
            "scorer": scorer.identity(),
            "reader": self.reader_fingerprint if scorer.needs_reader else None,
            "threads": self.settings.threads if scorer.reads_model else None,
            "formulas_version": FORMULAS_VERSION,
            "part_format": PART_FORMAT,
        }


class Worker:
    """Makes its reader at the first task and keeps it."""

    def __init__(self, spec: WorkerSpec) -> None:
        """Load nothing yet."""
        self._spec = spec
        self._work: Work | None = None

    def run(self, task: Task) -> Outcome:
        """Do one unit and write its part. Raises: ModelError when there is no usable reader; nothing
        else.
        """
        if self._work is None:
            settings = self._spec.settings
            size = BatchSize(settings.batch_segments, settings.batch_pairs)
            self._work = Work(self._spec.scorer, settings, self._make_reader(), size)
        try:
            work = self._work if task.scorer is None else replace(self._work, scorer=task.scorer)
            result = score_unit(task.unit, work, task.rows)
            info = PartInfo(
                fingerprint=task.fingerprint,
                num_rows=len(result.rows),
                document_tokens=result.document_tokens,
                tokens_alone=result.tokens_alone,
                tokens_given=result.tokens_given,
            )
            path = part_path(self._spec.out, task.fingerprint)
            write_part(
                path,
                result.rows,
                info,
                keep_pairs=self._spec.settings.keep_pairs,
                extras=self._spec.scorer.extra_columns,
            )
        except Exception as error:  # this unit failed; the others go on, and a re-run tries it again
            return Outcome(task, None, f"{type(error).__name__}: {error}", self._work.size)
        return Outcome(task, info, "", self._work.size)

    def _make_reader(self) -> Reader | None:
        spec = self._spec
        if not spec.scorer.needs_reader or spec.make_reader is None:
            return None
        try:
            reader = spec.make_reader()
        except LonglodeError:
            raise
        except Exception as error:
            raise ModelError(f"the reader could not be made: {type(error).__name__}: {error}") from error
        if reader.fingerprint != spec.reader_fingerprint:
            raise ModelError(
                f"make_reader gave the reader {reader.fingerprint!r}; expected {spec.reader_fingerprint!r}, "
                "by which results are named. Pass the fingerprint of the reader that make_reader makes."
            )
        if isinstance(reader, ThreadedReader):
            reader.use_threads(spec.settings.threads)
        return reader
