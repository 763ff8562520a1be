"""The engine: inputs -> units of work -> parts -> record.

A unit's part is named by the fingerprint of what determines it: the unit, the settings, the scorer, the
reader and the version of the formulas. A part that exists and verifies is done; there is no other state. So a
run that was killed continues where it ended, a torn part is made again, and any number of workers gives the same
parts, byte for byte.

Ids that occur twice are counted in the record and keep all their rows, because a unit must not depend on
another; `select` keeps the first.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from longlode.core.errors import ConfigError, InputError
from longlode.core.fingerprints import fingerprint
from longlode.core.names import printable
from longlode.core.outputs import claim_folder, full_path
from longlode.core.records import remove_leftovers, write_record
from longlode.corpus import Unit, plan
from longlode.mining.engine.fit import fit_jobs, fit_state, kept_state
from longlode.mining.engine.parts import PARTS_FOLDER, PartInfo, part_path
from longlode.mining.engine.pool import run_jobs
from longlode.mining.engine.pulse import Count
from longlode.mining.engine.settings import ScoreSettings
from longlode.mining.engine.summary import summarize_parts
from longlode.mining.engine.token_reader import packaged_tokens
from longlode.mining.engine.workers import Job, Outcome, WorkerSpec
from longlode.mining.extras import describe_extras, extra_fields
from longlode.mining.reader import Reader
from longlode.mining.requests import BatchSize
from longlode.mining.scorers import Scorer


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """Progress of a pass over the corpus, including what an earlier run has done.

    units, of total_units: finished or failed. num_bytes, of total_bytes: of input, within units as well (a share of the
      unit's size, as text is read); the total at the end. documents, tokens: done so far, tokens of the scored ones.
    """

    units: int
    total_units: int
    num_bytes: int
    total_bytes: int
    documents: int
    tokens: int


Progress = Callable[[RunProgress], None]
"""Function called with the progress: at the start, after every unit, and a few times a second in between."""


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """Outcome of a run; `record.json` has the same and more.

    counts: rows by status. num_reused: units whose part existed already. failed_units: {unit, error} of the
    units without a part, empty when the run is complete. cost: document_tokens; tokens_alone and
    tokens_given, read by the model; tokens_read_per_token, their sum per document token.
    """

    out: Path
    num_documents: int
    counts: dict[str, int]
    num_units: int
    num_reused: int
    failed_units: list[dict[str, Any]]
    num_duplicate_ids: int
    cost: dict[str, float]
    seconds: float

    @property
    def complete(self) -> bool:
        """True when every unit has its part."""
        return not self.failed_units


@dataclass(eq=False)
class Tally:
    """Progress of a run.

    sizes: bytes of all its units, by part fingerprint. infos: of the finished ones. num_reused: units whose part
    existed already.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    infos: dict[str, PartInfo] = field(default_factory=dict)
    failed: list[Outcome] = field(default_factory=list)
    num_documents: int = 0
    num_tokens: int = 0
    num_reused: int = 0
    smallest_batch: int | None = None
    _most_bytes: int = 0

    def add(self, info: PartInfo) -> None:
        """Count a part that is there."""
        self.infos[info.fingerprint] = info
        self.num_documents += info.num_rows
        self.num_tokens += info.document_tokens

    def saw(self, size: BatchSize | None, given: int) -> None:
        """Note the batch size that a worker has come down to from `given` segments."""
        if size is not None and size.segments < given:
            self.smallest_batch = min(self.smallest_batch or size.segments, size.segments)

    def report(self, progress: Progress | None, counts: Mapping[str, Count] | None = None) -> None:
        """Report the progress. Args: counts, within units, by fingerprint; those of finished ones do not count."""
        if progress is None:
            return
        finished = {*self.infos, *(one.job.fingerprint for one in self.failed)}
        going = [
            (count, self.sizes[name])
            for name, count in (counts or {}).items()
            if name in self.sizes and name not in finished
        ]
        done = sum(self.sizes[name] for name in finished)
        within = sum(int(count.share * size) for count, size in going)
        self._most_bytes = max(self._most_bytes, done + within)  # no way back when a unit is tried again
        progress(
            RunProgress(
                units=len(finished),
                total_units=len(self.sizes),
                num_bytes=self._most_bytes,
                total_bytes=sum(self.sizes.values()),
                documents=self.num_documents + sum(count.documents for count, _ in going),
                tokens=self.num_tokens + sum(count.tokens for count, _ in going),
            )
        )


def score(
    inputs: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    scorer: Scorer,
    make_reader: Callable[[], Reader] | None = None,
    reader_fingerprint: str = "",
    settings: ScoreSettings | None = None,
    num_workers: int = 1,
    limit: int | None = None,
    notes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Score every document of the inputs into `out/parts/*.parquet` and write `out/record.json`.

    Args:
      inputs: files, folders, globs or URLs, as `corpus.plan` takes them.
      out: output folder; a run with the same arguments continues there.
      scorer: from `make_scorer`, or a Scorer of your own.
      make_reader, reader_fingerprint: makes the reader, once in each worker (a worker's thread count is set
        before), and that reader's fingerprint; picklable with more than one worker. Not needed for
        scorers that read no model.
      settings: defaults to ScoreSettings().
      num_workers: processes; 1 works in this one. The parts do not depend on it.
      limit: number of rows to score, the first ones; the same call with more, or without, continues from there.
      notes: more fields for the record.
      overwrite: replace scores of other inputs or settings that `out` holds; parts that still fit are used again.
      progress: called with the progress at the start, after every unit, and a few times a second in between.
    Returns: a summary; `failed_units` is not empty when a unit failed as a whole, and a re-run tries just
      those.
    Raises: InputError for inputs that are not there or an `out` that cannot be used; ConfigError;
      ModelError when the reader cannot be made.
    """
    started = time.monotonic()
    settings = settings or ScoreSettings()
    make_reader, reader_fingerprint = with_tokens(scorer, make_reader, reader_fingerprint)
    check_run(scorer, make_reader, reader_fingerprint, num_workers)
    listed = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    spec = WorkerSpec(full_path(out), scorer, settings, make_reader, reader_fingerprint)
    prepare_folder(spec, listed, overwrite=overwrite)
    units = plan(listed, rows_per_unit=settings.rows_per_unit, exclude=spec.out, limit=limit)
    if scorer.fits:
        fitted = fit_corpus(units, spec, num_workers, progress)
        if isinstance(fitted, Tally):
            return conclude(listed, [make_job(unit, spec) for unit in units], spec, fitted, started)
        spec = fitted
    jobs = [make_job(unit, spec) for unit in units]
    tally = do_jobs(jobs, spec, num_workers, progress)
    return conclude(listed, jobs, spec, tally, started, notes=_notes(limit, notes))


def _notes(limit: int | None, notes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**({} if limit is None else {"limit": limit}), **(notes or {})}


def fit_corpus(
    units: Sequence[Unit], spec: WorkerSpec, num_workers: int, progress: Progress | None = None
) -> WorkerSpec | Tally:
    """Make the scorer's pass over the corpus, except for the units that an earlier run has done.

    Returns: the spec with the fitted scorer; or, when units failed, a tally that names those and holds nothing
      else: a re-run tries them again.
    Raises: as `run_jobs`; the scorer's errors when it cannot be fitted.
    """
    jobs = fit_jobs(units, spec)
    state = kept_state(jobs, spec)
    if state is None:
        tally = do_jobs(jobs, spec, num_workers, progress)
        if tally.failed:
            return Tally(failed=tally.failed)
        state = fit_state(jobs, spec)
    return replace(spec, scorer=spec.scorer.fitted(state), fit=fingerprint(state))


def do_jobs(
    jobs: Sequence[Job], spec: WorkerSpec, num_workers: int, progress: Progress | None = None
) -> Tally:
    """Make sure that every job has its part: take those that verify, do the others.

    Raises: as `run_jobs`; a job that fails is listed in the tally.
    """
    tally = Tally({job.fingerprint: job.unit.num_bytes for job in jobs})
    pending = list(_take_done(jobs, spec.out, tally))
    tally.num_reused = len(tally.infos)
    tally.report(progress)
    listen = None if progress is None else partial(tally.report, progress)
    for outcome in run_jobs(pending, spec, num_workers, listen):
        if outcome.info is None:
            tally.failed.append(outcome)
        else:
            tally.add(outcome.info)
        tally.saw(outcome.size, spec.settings.batch_segments)
        tally.report(progress)
    for folder in {job.path(spec.out).parent for job in jobs}:
        remove_leftovers(folder)
    return tally


def with_tokens(
    scorer: Scorer, make_reader: Callable[[], Reader] | None, reader_fingerprint: str
) -> tuple[Callable[[], Reader] | None, str]:
    """The reader's maker, and its fingerprint; those of the starter if none is given and tokens are enough."""
    if make_reader is None and scorer.reads_tokens and not scorer.reads_model:
        return packaged_tokens, packaged_tokens().fingerprint
    return make_reader, reader_fingerprint


def check_run(
    scorer: Scorer, make_reader: Callable[[], Reader] | None, reader_fingerprint: str, num_workers: int
) -> None:
    """Raises: ConfigError for an invalid number of workers, a missing reader or invalid extra columns."""
    extra_fields(scorer.extra_columns)
    if num_workers < 1:
        raise ConfigError(f"num_workers is {num_workers}; expected at least 1.")
    if scorer.reads_tokens and (make_reader is None or not reader_fingerprint):
        raise ConfigError(
            f"scorer {scorer.name!r} reads a model: pass make_reader and reader_fingerprint, or choose "
            "one that reads none, such as 'gzip'."
        )


def prepare_folder(
    spec: WorkerSpec,
    inputs: Sequence[str | Path],
    *,
    race: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Make the output folder of a run.

    Args: race: the rule of a race, None for a run without one; overwrite: as of `score`.
    Raises: InputError for a folder that holds anything but a run of the same settings over some of these inputs, and
      for one that a later run would read as input.
    """
    out = spec.out
    for item in inputs:
        folder = full_path(item)
        if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"the output folder {out} lies inside the input folder {item}: the next run would read the "
                "scores as documents. Choose a folder outside it."
            )
    if printable(str(out)) != str(out):
        raise InputError(
            f"the name of the output folder '{printable(str(out))}' is not UTF-8; choose another."
        )
    given = {printable(str(item)) for item in inputs}

    def covered(recorded: Any) -> bool:
        return isinstance(recorded, list) and given.issuperset(recorded)

    def raced_alike(recorded: Any) -> bool:
        return (recorded is None) == (race is None) and all(
            recorded.get(name) == (list(value) if isinstance(value, tuple) else value)
            for name, value in (race or {}).items()
        )

    claim_folder(
        out,
        "scores",
        identity={"inputs": covered, "race": raced_alike, **spec.identity()},
        overwrite=overwrite,
    )
    try:
        (out / PARTS_FOLDER).mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to the output folder {out}: {error.strerror or error}.") from None


def make_job(
    unit: Unit,
    spec: WorkerSpec,
    *,
    rows: tuple[int, ...] | None = None,
    scorer: Scorer | None = None,
    also: dict[str, Any] | None = None,
) -> Job:
    """A job of a run, with the name of its part. Args: rows, scorer, as of `Job`; also, what else determines it."""
    shape = {"unit": unit.fingerprint, **spec.identity(scorer), **(also or {})}
    return Job(unit, fingerprint(shape if rows is None else {**shape, "rows": rows}), rows, scorer)


def _take_done(jobs: Sequence[Job], out: Path, tally: Tally) -> Iterator[Job]:
    """Put the units whose part verifies into the tally, and yield the others; torn parts are removed."""
    for job in jobs:
        info = job.info(out)
        if info is not None:
            tally.add(info)
            continue
        job.path(out).unlink(missing_ok=True)
        yield job


def conclude(
    inputs: Sequence[str | Path],
    jobs: Sequence[Job],
    spec: WorkerSpec,
    tally: Tally,
    started: float,
    race: dict[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> ScoreSummary:
    """Write `record.json` of the parts in the tally.

    Args: started, by time.monotonic; race, its record; notes, more fields.
    """
    out, num_reused = spec.out, tally.num_reused
    finished = [job for job in jobs if job.fingerprint in tally.infos]
    done = [tally.infos[job.fingerprint] for job in finished]
    paths = [part_path(out, job.fingerprint) for job in finished]
    sums = summarize_parts(paths)
    assert sums["num_documents"] == sum(info.num_rows for info in done), "counts must add up to the rows"
    totals = {
        name: sum(getattr(info, name) for info in done)
        for name in ("document_tokens", "tokens_alone", "tokens_given")
    }
    read = totals["tokens_alone"] + totals["tokens_given"]
    cost = totals | {
        "tokens_read_per_token": read / totals["document_tokens"] if totals["document_tokens"] else 0.0
    }
    summary = ScoreSummary(
        out=out,
        num_documents=sums["num_documents"],
        counts=sums["counts"],
        num_units=len(jobs),
        num_reused=num_reused,
        failed_units=[{"unit": one.job.unit.to_json(), "error": one.error} for one in tally.failed],
        num_duplicate_ids=sums["duplicates"]["num_ids"],
        cost=cost,
        seconds=time.monotonic() - started,
    )
    write_record(
        out,
        "scores",
        inputs=[printable(str(item)) for item in inputs],
        **spec.identity(),
        **sums,
        **({} if race is None else {"race": race}),
        **({"extras": extras} if (extras := describe_extras(spec.scorer.extra_columns)) else {}),
        complete=summary.complete,
        num_units=summary.num_units,
        num_reused=num_reused,
        failed_units=summary.failed_units,
        parts=[
            {"part": part_path(out, job.fingerprint).name, "unit": job.unit.to_json()} for job in finished
        ],
        num_other_parts=_count_other_parts(out, paths),
        smallest_batch_segments=tally.smallest_batch,
        cost=cost,
        seconds=summary.seconds,
        **(notes or {}),
    )
    return summary


def _count_other_parts(out: Path, paths: list[Path]) -> int:
    """Parts of earlier settings or inputs; they are kept and belong to no record."""
    return len(set((out / PARTS_FOLDER).glob("*.parquet")) - set(paths))
