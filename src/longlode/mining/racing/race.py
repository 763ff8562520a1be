"""Racing: pairs of a document are read only until it is clear on which side of the cut it lies.

`standings.py` decides which documents are read further. Each round is an ordinary run of the engine in
`OUT/rounds/1/`, `2/` ..., on the documents that are open and on those of their pairs that were not read before: pairs
are taken in one random order per document, so the 64 of a round include the 32 of the round before. At the end all
pairs of each document are combined into ordinary parts and an ordinary record.

A round depends on the scores of the whole corpus, so a unit that fails ends the race until the same command is run
again. A document that fails in a later round counts as failed, as it would without a race.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from longlode.core.errors import ConfigError
from longlode.core.fingerprints import fingerprint
from longlode.core.outputs import full_path
from longlode.mining.engine.outcome import ScoreSummary, conclude
from longlode.mining.engine.run import check_run, make_job, make_plan, prepare_folder
from longlode.mining.engine.settings import ScoreSettings
from longlode.mining.engine.tally import Progress
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
    """Score every document as `engine.score` does, but only as precisely as selecting the best share needs.

    The result is a scores folder like any other; num_pairs has the number of pairs of each document, and the record has
    an entry "race": the rule, the work of each round, and the number of documents that were decided with fewer pairs
    than the most.

    Args: inputs, out, make_reader, reader_fingerprint, settings, num_workers, limit, notes, overwrite, as of `score`;
      scorer, a PairMeanScorer such as "strength", whose `pairs` are the most that are read of a document (None: all);
      rule, of the decision; progress, called with the number of each round from 1, returns the `progress` of the
      round.
    Returns: a summary. `failed_units` is not empty when a unit failed as a whole: then there are no scores yet, and a
      re-run continues there.
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
    units = list(make_plan(listed, spec, limit=limit).units())
    everything = {"race": asdict(rule), "units": fingerprint([unit.fingerprint for unit in units])}
    jobs = [make_job(unit, spec, also=everything) for unit in units]

    about = {**({} if limit is None else {"limit": limit}), **(notes or {})}
    done = RaceRounds(spec, raced, rule, units, num_workers, progress)
    try:
        rounds = list(run_rounds(rule, raced.pairs, done.read))
    except UnfinishedRoundError as unfinished:
        return conclude(listed, spec, unfinished.tally, [], started, asdict(rule), about)
    tally = done.write_parts(jobs)
    parts = [{"part": f"{job.fingerprint}.parquet", "unit": job.unit.to_json()} for job in jobs]
    return conclude(listed, spec, tally, parts, started, _entry(rule, rounds, done.costs), about)


def check_raceable(scorer: Scorer, rule: RaceRule | None = None) -> PairMeanScorer:
    """Check the scorer. Raises: ConfigError with the reason when its score cannot be raced, or not by this rule."""
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
    """Fields of the record on the race."""
    return {
        **asdict(rule),
        "rounds": [asdict(one) | cost for one, cost in zip(rounds, costs, strict=True)],
        "num_decided_early": rounds[-1].num_decided,
    }


class _Once:
    """Function that makes the reader at the first call and keeps it for all rounds; another process makes its own."""

    def __init__(self, make: Callable[[], Reader]) -> None:
        self._make = make
        self._made: Reader | None = None

    def __call__(self) -> Reader:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __reduce__(self) -> tuple[type["_Once"], tuple[Callable[[], Reader]]]:
        return type(self), (self._make,)
