"""Racing: stop reading pairs of a document once it is clear on which side of the cut it lies.

`standings.py` says who is read on. Each round is an ordinary run of the engine in `OUT/rounds/1/`, `2/` ..., of the
documents that are open and of those of their pairs that were not read before: pairs are taken in an order that chance
settles once for each document, so the 64 that a document is judged by have the 32 of before among them. At the end all
pairs of each document are put together into ordinary parts and an ordinary record.

A round depends on the scores of the whole corpus, so a unit that fails ends the race until the same command is given
again. A document that fails in a later round has failed, as it would have without a race.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from longlode.core.errors import ConfigError
from longlode.core.fingerprints import fingerprint
from longlode.core.outputs import full_path
from longlode.corpus import plan
from longlode.mining.engine.run import Progress, ScoreSummary, check_run, conclude, make_job, prepare_folder
from longlode.mining.engine.settings import ScoreSettings
from longlode.mining.engine.workers import WorkerSpec
from longlode.mining.racing.rounds import RaceRounds, UnfinishedRoundError
from longlode.mining.racing.standings import RaceRule, Round, run_rounds
from longlode.mining.reader import Reader
from longlode.mining.scorers import Scorer
from longlode.mining.scorers.pair_mean import PairMeanScorer


def race(
    inputs: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    scorer: Scorer,
    rule: RaceRule,
    make_reader: Callable[[], Reader] | None = None,
    reader_fingerprint: str = "",
    settings: ScoreSettings | None = None,
    num_workers: int = 1,
    limit: int | None = None,
    notes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Callable[[int], Progress] | None = None,
) -> ScoreSummary:
    """Score every document of the inputs as well as it takes to select the best share, as `engine.score` does.

    The result is a scores folder like any other; num_pairs says how many pairs each document got, and the record has an
    entry "race": the rule, what each round did and read, and how many documents were decided with fewer pairs than
    the most.

    Args: inputs, out, make_reader, reader_fingerprint, settings, num_workers, limit, notes, overwrite, as of `score`;
      scorer, a PairMeanScorer such as "strength", whose `pairs` are the most that are read of a document (None: all);
      rule, what is decided; progress, called with the number of each round from 1, gives what to call after its units.
    Returns: a summary. `failed_units` is not empty when a unit failed as a whole: then there are no scores yet, and a
      re-run goes on there.
    Raises: ConfigError for a scorer that cannot be raced; else as `score`.
    """
    started = time.monotonic()
    raced = check_raceable(scorer, rule)
    settings = settings or ScoreSettings()
    check_run(raced, make_reader, reader_fingerprint, num_workers)
    listed = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    kept_reader = None if make_reader is None else _Once(make_reader)
    spec = WorkerSpec(full_path(out), raced, settings, kept_reader, reader_fingerprint)
    prepare_folder(spec, listed, race=asdict(rule), overwrite=overwrite)
    units = plan(listed, rows_per_unit=settings.rows_per_unit, exclude=spec.out, limit=limit)
    everything = {"race": asdict(rule), "units": fingerprint([unit.fingerprint for unit in units])}
    jobs = [make_job(unit, spec, also=everything) for unit in units]

    about = {**({} if limit is None else {"limit": limit}), **(notes or {})}
    done = RaceRounds(spec, raced, rule, units, num_workers, progress)
    try:
        rounds = list(run_rounds(rule, raced.pairs, done.read))
    except UnfinishedRoundError as unfinished:
        return conclude(listed, jobs, spec, unfinished.tally, started, asdict(rule), about)
    tally = done.write_parts(jobs)
    return conclude(listed, jobs, spec, tally, started, _entry(rule, rounds, done.costs), about)


def check_raceable(scorer: Scorer, rule: RaceRule | None = None) -> PairMeanScorer:
    """The scorer. Raises: ConfigError that says why when its score cannot be raced, or not by this rule."""
    if scorer.fits:
        raise ConfigError(
            f"the scorer {scorer.name!r} cannot be raced: it makes a pass over the corpus first. Score without a race."
        )
    if isinstance(scorer, PairMeanScorer):
        if rule is not None and scorer.pairs is not None and scorer.pairs <= rule.first_pairs:
            raise ConfigError(
                f"a race that begins with {rule.first_pairs} pairs of every document saves nothing when "
                f"{scorer.pairs} are the most; ask for more pairs, or score without a race."
            )
        return scorer
    why = "its score is not made of sampled pairs, so there are none to save"
    if scorer.least_pairs:
        why = (
            "its score is a sum that grows with the pairs read, and what a pair adds depends on the others "
            "(specificity), so a few pairs do not say, even roughly, what many will"
        )
    raise ConfigError(
        f"the scorer {scorer.name!r} cannot be raced: {why}. Expected one whose score is a mean over pairs, such "
        "as 'strength'; or score without a race."
    )


def _entry(rule: RaceRule, rounds: Sequence[Round], costs: Sequence[dict[str, int]]) -> dict[str, Any]:
    """What the record says of the race."""
    return {
        **asdict(rule),
        "rounds": [asdict(one) | cost for one, cost in zip(rounds, costs, strict=True)],
        "num_decided_early": rounds[-1].num_decided,
    }


class _Once:
    """Makes the reader at the first call and keeps it for all rounds; another process makes its own."""

    def __init__(self, make: Callable[[], Reader]) -> None:
        self._make = make
        self._made: Reader | None = None

    def __call__(self) -> Reader:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __reduce__(self) -> tuple[type["_Once"], tuple[Callable[[], Reader]]]:
        return type(self), (self._make,)
