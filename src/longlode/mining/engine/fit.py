"""Pass over the corpus before scoring, for scorers that need one.

Each unit is tallied by itself, in any worker, into a file of `OUT/fit/`, named like parts by all that determines it.
Then the tallies are combined, in the order of the units, into one state, which is stored beside them. So a run that was
killed in the pass or after it continues where it ended, any number of workers gives the same state, and the state is
part of the name of every part that is scored with it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longlode.core.errors import InputError
from longlode.core.fingerprints import fingerprint
from longlode.core.records import read_record
from longlode.core.sealed_json import read_sealed, write_sealed
from longlode.corpus import Document, Unit, read_unit
from longlode.mining.engine import pulse
from longlode.mining.engine.parts import PartInfo
from longlode.mining.engine.work import check_source, share_of
from longlode.mining.engine.workers import Job, Worker, WorkerSpec
from longlode.mining.scorers import Scorer

FIT_FOLDER = "fit"
FIT_FORMAT = 1
"""Part of the name of every file in the folder: raise it when their format changes."""


@dataclass(frozen=True)
class FitJob(Job):
    """One unit to tally. Its file is not a part, but is described by the same `PartInfo`."""

    def path(self, out: Path) -> Path:
        """Path of its tally."""
        return out / FIT_FOLDER / f"{self.fingerprint}.tally"

    def info(self, out: Path) -> PartInfo | None:
        """As of `Job`."""
        found = read_sealed(self.path(out))
        return None if found is None else self._info(found["num_documents"])

    def prepare(self, worker: Worker) -> None:
        """Load nothing, as no reader is needed."""

    def do(self, worker: Worker) -> PartInfo:
        """Tally the documents of the unit that can be read."""
        count = 0

        def documents() -> Iterator[Document]:
            nonlocal count
            settings = worker.spec.settings
            found = read_unit(
                self.unit,
                text_field=settings.text_field,
                encoding=settings.encoding,
                with_metadata=worker.spec.scorer.reads_metadata,
            )
            for item in check_source(self.unit, found):
                if isinstance(item, Document) and item.text:
                    pulse.step()
                    count += 1
                    yield item  # and it is tallied when the next one is asked for
                    pulse.finish_documents(share_of(self.unit, [item]), 1, 0)

        tally = worker.spec.scorer.tally(documents())
        write_sealed(self.path(worker.spec.out), {"num_documents": count, "tally": tally})
        return self._info(count)

    def _info(self, num_documents: int) -> PartInfo:
        return PartInfo(
            fingerprint=self.fingerprint,
            num_rows=num_documents,
            document_tokens=0,
            tokens_alone=0,
            tokens_given=0,
        )


def fit_jobs(units: Iterable[Unit], spec: WorkerSpec) -> list[FitJob]:
    """The pass of a run, unit by unit."""
    shape = {
        "format": FIT_FORMAT,
        "scorer": spec.scorer.identity(),
        "text_field": spec.settings.text_field,
    }
    return [FitJob(unit, fingerprint({**shape, "unit": unit.fingerprint})) for unit in units]


def kept_state(jobs: Sequence[FitJob], spec: WorkerSpec) -> Any | None:
    """The state of an earlier run over the same units; None when there is none that verifies."""
    found = read_sealed(_state_path(jobs, spec))
    return None if found is None else found["state"]


def fit_state(jobs: Sequence[FitJob], spec: WorkerSpec) -> Any:
    """Combine the tallies of all jobs, and store the result.

    Returns: the state as it comes back from its file, as plain JSON.
    Raises: InputError when a tally has gone since it was written; the scorer's errors when it cannot be fitted.
    """
    state = spec.scorer.fit(_tallies(jobs, spec))
    path = _state_path(jobs, spec)
    write_sealed(path, {"state": state})
    kept = read_sealed(path)
    if kept is None:
        raise InputError(f"{path} cannot be read back; is the disk full?")
    return kept["state"]


def fitted_scorer(out: Path, scorer: Scorer) -> Scorer:
    """The scorer in the state with which it scored an output folder. Args: scorer, in the state before a pass.

    Raises: InputError when the state that the folder's record names is not there.
    """
    if not scorer.fits:
        return scorer
    named = read_record(out, "scores").get("fit")
    for path in sorted((out / FIT_FOLDER).glob("*.state")):
        found = read_sealed(path)
        if found is not None and fingerprint(found["state"]) == named:
            return scorer.fitted(found["state"])
    raise InputError(f"{out / FIT_FOLDER} does not hold what the scores were made with. Score again.")


def _tallies(jobs: Sequence[FitJob], spec: WorkerSpec) -> Iterator[Any]:
    for job in jobs:
        found = read_sealed(job.path(spec.out))
        if found is None:
            raise InputError(f"{job.path(spec.out)} has gone or changed since it was written. Run it again.")
        yield found["tally"]


def _state_path(jobs: Sequence[FitJob], spec: WorkerSpec) -> Path:
    return spec.out / FIT_FOLDER / f"{fingerprint([job.fingerprint for job in jobs])}.state"
