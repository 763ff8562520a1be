"""The end of a run: its summary, and the record of the folder, over all shards that are there."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longlode.core.errors import InputError
from longlode.core.names import printable
from longlode.core.records import read_json, read_record, remove_leftovers, write_json, write_record
from longlode.corpus import Shard
from longlode.mining.engine.merging import PLAN_FOLDER
from longlode.mining.engine.parts import PARTS_FOLDER
from longlode.mining.engine.summary import SUMS, summarize_parts
from longlode.mining.engine.tally import Tally
from longlode.mining.engine.workers import WorkerSpec
from longlode.mining.extras import describe_extras

logger = logging.getLogger(__name__)

SHARDS_FOLDER = "shards"
_MOST_FAILED = 100
_COSTS = ("document_tokens", "tokens_alone", "tokens_given")
_ADDED = ("num_units", "num_reused", "num_failed_units", "seconds")


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """Outcome of a run; `record.json` has the same and more.

    counts: rows by status. num_reused: units whose part existed already. failed_units: {unit, error} of the
    units without a part, empty when the run is complete. cost: document_tokens; tokens_alone and
    tokens_given, read by the model; tokens_read_per_token, their sum per document token. shards_missing: those of the
    folder that are not complete.
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
    shards_missing: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        """True when every unit has its part."""
        return not self.failed_units


def conclude(
    inputs: Sequence[str | Path],
    spec: WorkerSpec,
    tally: Tally,
    parts: list[dict[str, Any]],
    started: float,
    race: dict[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
    shard: Shard | None = None,
) -> ScoreSummary:
    """Write `record.json`.

    Args: parts, entries of the record, in the order of the units; started, by time.monotonic; race, its record; notes,
      more fields; shard, the share that was scored: the record is that of all shards of the folder.
    """
    out = spec.out
    failed = [{"unit": one.job.unit.to_json(), "error": one.error} for one in tally.failed]
    seconds = time.monotonic() - started
    own = {
        "parts": parts,
        "complete": not failed,
        "num_units": tally.num_units,
        "num_reused": tally.num_reused,
        "num_failed_units": len(failed),
        "failed_units": failed[:_MOST_FAILED],
        "num_documents": tally.num_documents,
        "smallest_batch_segments": tally.smallest_batch,
        "cost": {name: tally.cost[name] for name in _COSTS},
        "seconds": seconds,
    }
    about = {
        "inputs": [printable(str(item)) for item in inputs],
        **spec.identity(),
        **({} if race is None else {"race": race}),
        **({"extras": extras} if (extras := describe_extras(spec.scorer.extra_columns)) else {}),
        **(notes or {}),
    }
    if shard is None:
        sums = _write(out, about, [own])
        missing: list[int] = []
    else:
        write_json(out / SHARDS_FOLDER / _shard_name(shard), {"identity": _identity(about), **own})
        sums, missing = _write_shards(out, about, shard)
    for folder in (out, out / PLAN_FOLDER, out / SHARDS_FOLDER):
        remove_leftovers(folder)
    return ScoreSummary(
        out=out,
        num_documents=tally.num_documents,
        counts=dict(sorted(tally.counts.items())),
        num_units=tally.num_units,
        num_reused=tally.num_reused,
        failed_units=failed,
        num_duplicate_ids=sums["duplicates"]["num_ids"],
        cost=_cost([own]),
        seconds=seconds,
        shards_missing=tuple(missing),
    )


def _write_shards(out: Path, about: dict[str, Any], shard: Shard) -> tuple[dict[str, Any], list[int]]:
    """Write the record of the shards that are there. Returns: its sums, and the numbers of those that are missing.

    Several shards may end at once: whoever finds that another has come while it wrote, writes again.
    """
    while True:
        found = _shards(out, about, shard.total)
        missing = [n for n in range(1, shard.total + 1) if n not in found or not found[n]["complete"]]
        told = {"total": shard.total, "missing": missing}
        sums = _write(out, {**about, "shards": told}, [found[n] for n in sorted(found)], complete=not missing)
        if _shards(out, about, shard.total) == found:
            return sums, missing


def _shards(out: Path, about: dict[str, Any], total: int) -> dict[int, dict[str, Any]]:
    """Results of the shards of this corpus and these settings, by number."""
    found = {}
    for number in range(1, total + 1):
        path = out / SHARDS_FOLDER / _shard_name(Shard(number, total))
        try:
            one = read_json(path)
        except InputError as error:
            if path.exists():  # else its shard has not ended yet
                logger.warning("%s Shard %d counts as missing: run it again.", error, number)
            continue
        if one.get("identity") == _identity(about):
            found[number] = one
    return found


def _identity(about: dict[str, Any]) -> dict[str, Any]:
    return {
        name: about[name] for name in ("inputs", "settings", "scorer", "reader", "threads", "part_format")
    }


def _shard_name(shard: Shard) -> str:
    return f"{shard.number}-of-{shard.total}.json"


def _write(
    out: Path, about: dict[str, Any], runs: Sequence[dict[str, Any]], *, complete: bool | None = None
) -> dict[str, Any]:
    """Write the record of one or more runs. Returns: its sums over all rows."""
    parts = [entry for run in runs for entry in run["parts"]]
    names = [entry["part"] for entry in parts]
    sums = _known_sums(out, about, parts) or summarize_parts([out / PARTS_FOLDER / name for name in names])
    assert sums["num_documents"] == sum(run["num_documents"] for run in runs), (
        "counts must add up to the rows"
    )
    batches = [run["smallest_batch_segments"] for run in runs if run["smallest_batch_segments"] is not None]
    write_record(
        out,
        "scores",
        **about,
        **sums,
        complete=all(run["complete"] for run in runs) if complete is None else complete,
        **{name: sum(run[name] for run in runs) for name in _ADDED},
        failed_units=[unit for run in runs for unit in run["failed_units"]][:_MOST_FAILED],
        parts=parts,
        num_other_parts=len({path.name for path in (out / PARTS_FOLDER).glob("*.parquet")} - set(names)),
        smallest_batch_segments=min(batches, default=None),
        cost=_cost(runs),
    )
    return sums


def _known_sums(out: Path, about: dict[str, Any], parts: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The sums of the record that is there, if it is of the same parts: names of parts stand for their content."""
    try:
        record = read_record(out, "scores")
    except InputError:
        return None
    same = record.get("parts") == parts and all(name in record for name in SUMS)
    return (
        {name: record[name] for name in SUMS}
        if same and record.get("extras") == about.get("extras")
        else None
    )


def _cost(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Tokens of the documents and read by the model, and the ratio."""
    totals = {name: sum(run["cost"][name] for run in runs) for name in _COSTS}
    read = totals["tokens_alone"] + totals["tokens_given"]
    return totals | {
        "tokens_read_per_token": read / totals["document_tokens"] if totals["document_tokens"] else 0.0
    }
