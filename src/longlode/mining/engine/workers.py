"""Workers, which make their reader once, score units, and write their parts."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longlode.core.errors import LonglodeError, ModelError
from longlode.corpus import Unit
from longlode.mining.dependency import FORMULAS_VERSION
from longlode.mining.engine import pulse
from longlode.mining.engine.parts import PART_FORMAT, PartInfo, part_path, read_info, write_part
from longlode.mining.engine.settings import ScoreSettings
from longlode.mining.engine.work import Work, score_unit
from longlode.mining.reader import Reader, ThreadedReader
from longlode.mining.requests import BatchSize, check_reader
from longlode.mining.scorers import Scorer


@dataclass(frozen=True)
class Job:
    """One unit to do, and the fingerprint that names its part.

    rows: as of `score_unit`, None for all of them. scorer: used instead of the run's, with the same requests.
    lost, is_careful: of a unit that has ended its worker, as of `score_unit`.
    """

    unit: Unit
    fingerprint: str
    rows: tuple[int, ...] | None = None
    scorer: Scorer | None = None
    lost: tuple[tuple[int, str], ...] = ()
    is_careful: bool = False

    def bare(self) -> "Job":
        """Return the job without the bytes of its unit, to be kept."""
        return self if self.unit.data is None else replace(self, unit=self.unit.bare())

    def path(self, out: Path) -> Path:
        """Path of its result in the output folder."""
        return part_path(out, self.fingerprint)

    def info(self, out: Path) -> PartInfo | None:
        """Metadata of its result; None when it is missing, torn or changed."""
        return read_info(self.path(out))

    def prepare(self, worker: "Worker") -> None:
        """Load what it needs besides its input. Raises: ModelError when there is no usable reader."""
        worker.make_work()

    def do(self, worker: "Worker") -> PartInfo:
        """Score the unit and write its part."""
        work, spec = worker.make_work(), worker.spec
        work = work if self.scorer is None else replace(work, scorer=self.scorer)
        result = score_unit(self.unit, work, self.rows, lost=dict(self.lost), is_careful=self.is_careful)
        info = PartInfo(
            fingerprint=self.fingerprint,
            num_rows=len(result.rows),
            document_tokens=result.document_tokens,
            tokens_alone=result.tokens_alone,
            tokens_given=result.tokens_given,
            statuses=dict(sorted(Counter(row["status"] for row in result.rows).items())),
        )
        write_part(
            self.path(spec.out),
            result.rows,
            info,
            keep_pairs=spec.settings.keep_pairs,
            extras=spec.scorer.extra_columns,
        )
        return info


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job: its part's info, or an error text. size: the batch sizes that the worker has come down to."""

    job: Job
    info: PartInfo | None
    error: str = ""
    size: BatchSize | None = None


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker needs besides its jobs; picklable when make_reader is.

    fit: fingerprint of the scorer's state from the corpus; "" for one that makes no pass over it.
    """

    out: Path
    scorer: Scorer
    settings: ScoreSettings
    make_reader: Callable[[], Reader] | None
    reader_fingerprint: str
    fit: str = ""

    def identity(self, scorer: Scorer | None = None) -> dict[str, Any]:
        """Everything that determines a part, except its unit, as JSON. Args: scorer, of a job that has its own."""
        scorer = scorer or self.scorer
        return {
            "settings": self.settings.identity(),
            "scorer": scorer.identity(),
            "reader": self.reader_fingerprint if scorer.reads_tokens else None,
            "threads": self.settings.threads if scorer.reads_model else None,
            "formulas_version": FORMULAS_VERSION,
            "part_format": PART_FORMAT,
            **({"fit": self.fit} if self.fit else {}),
        }


class Worker:
    """Worker that does jobs, and keeps the scorer and the reader between them."""

    def __init__(self, spec: WorkerSpec) -> None:
        """Load nothing yet."""
        self.spec = spec
        self._work: Work | None = None

    def make_work(self) -> Work:
        """Scorer, reader and batch sizes, made at the first call. Raises: ModelError without a usable reader."""
        if self._work is None:
            settings = self.spec.settings
            size = BatchSize(settings.batch_segments, settings.batch_pairs)
            self._work = Work(self.spec.scorer, settings, self._make_reader(), size)
        return self._work

    def run(self, job: Job) -> Outcome:
        """Do one job. Raises: ModelError when there is no usable reader; nothing else."""
        job.prepare(self)
        done = job.bare()
        size = None if self._work is None else self._work.size
        pulse.start_unit(job.fingerprint)
        try:
            return Outcome(done, job.do(self), "", size)
        except Exception as error:  # this unit failed; the others go on, and a re-run tries it again
            return Outcome(done, None, f"{type(error).__name__}: {error}", size)

    def _make_reader(self) -> Reader | None:
        spec = self.spec
        if not spec.scorer.reads_tokens or spec.make_reader is None:
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
        check_reader(spec.scorer.name, spec.scorer.asks, reader)
        if isinstance(reader, ThreadedReader):
            reader.use_threads(spec.settings.threads)
        return reader
