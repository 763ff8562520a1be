"""The engine: inputs -> units of work -> parts -> record.

A unit's part is named by the fingerprint of what determines it: the unit, the settings, the scorer, the
reader and the version of the formulas. A part that exists and verifies is done; there is no other state. So a
run that was killed continues where it ended, a torn part is made again, and any number of workers, of runs at once or
of shards gives the same rows, byte for byte.

Ids that occur twice are counted in the record and keep all their rows, because a unit must not depend on
another; `select` keeps the first.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from longlode.core.errors import ConfigError, InputError
from longlode.core.fingerprints import fingerprint
from longlode.core.names import printable
from longlode.core.outputs import claim_folder, full_path
from longlode.corpus import CorpusPlan, PlanStore, Shard, Unit
from longlode.mining.engine.fit import fit_jobs, fit_state, kept_state
from longlode.mining.engine.flow import do_jobs
from longlode.mining.engine.merging import PLAN_FOLDER, Merger
from longlode.mining.engine.outcome import ScoreSummary, conclude
from longlode.mining.engine.parts import PARTS_FOLDER
from longlode.mining.engine.settings import ScoreSettings
from longlode.mining.engine.tally import Progress, Tally
from longlode.mining.engine.token_reader import packaged_tokens
from longlode.mining.engine.workers import Job, WorkerSpec
from longlode.mining.extras import extra_fields
from longlode.mining.reader import Reader
from longlode.mining.scorers import Scorer


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
    shard: Shard | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Score every document of the inputs into `out/parts/*.parquet` and write `out/record.json`.

    Several runs may work on one folder at once, on one machine or on many: each takes units that no other has in hand.

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
      shard: score only this share of the corpus; the record is complete when all shards are.
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
    plan = make_plan(listed, spec, limit=limit, shard=shard)
    if scorer.fits:
        fitted = fit_corpus(plan, spec, num_workers, progress, shard)
        if isinstance(fitted, Tally):
            return conclude(listed, spec, fitted, [], started)
        spec = fitted
    tally = Tally(lambda: plan.total_bytes, "" if shard is None else str(shard))
    merger = Merger(spec, settings.units_per_part, tally)
    # Workers elsewhere have connections of their own, which together are faster than the one of this process.
    with_data = settings.engine == "processes"
    jobs = merger.jobs(make_job(unit, spec) for unit in plan.units(with_data=with_data))
    do_jobs(jobs, spec, num_workers, tally, progress, done=merger.done, recover=merger.recover)
    about = {**({} if limit is None else {"limit": limit}), **(notes or {})}
    return conclude(listed, spec, tally, merger.finish(), started, notes=about, shard=shard)


def make_plan(
    inputs: Sequence[str | Path], spec: WorkerSpec, *, limit: int | None = None, shard: Shard | None = None
) -> CorpusPlan:
    """The plan of a run, kept in its output folder."""
    settings = spec.settings
    return CorpusPlan(
        inputs,
        rows_per_unit=settings.rows_per_unit,
        bytes_per_unit=settings.unit_bytes(reads_model=spec.scorer.reads_model),
        exclude=spec.out,
        limit=limit,
        shard=shard,
        store=PlanStore(spec.out / PLAN_FOLDER),
    )


def fit_corpus(
    plan: CorpusPlan,
    spec: WorkerSpec,
    num_workers: int,
    progress: Progress | None = None,
    shard: Shard | None = None,
) -> WorkerSpec | Tally:
    """Make the scorer's pass over the corpus, except for the units that an earlier run has done.

    Returns: the spec with the fitted scorer; or, when units failed, a tally that names those and holds nothing
      else: a re-run tries them again.
    Raises: as `run_jobs`; the scorer's errors when it cannot be fitted; ConfigError for a shard.
    """
    if shard is not None:
        raise ConfigError(
            f"the scorer {spec.scorer.name!r} reads the whole corpus before it scores; expected no shard. Several runs "
            "of the same command on one folder share its work without."
        )
    jobs = fit_jobs(plan.units(), spec)
    state = kept_state(jobs, spec)
    if state is None:
        tally = Tally(lambda: plan.total_bytes)
        do_jobs(jobs, spec, num_workers, tally, progress)
        if tally.failed:
            return Tally(lambda: plan.total_bytes, failed=tally.failed, num_units=tally.num_units)
        state = fit_state(jobs, spec)
    return replace(spec, scorer=spec.scorer.fitted(state), fit=fingerprint(state))


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
