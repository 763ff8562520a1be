"""Status of a scores folder while it is made, or after: what is done, failing and slow, and how long it will take."""

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from longlode.core.kinds import LEFTOVERS, RECORD_NAME, RUNS_FOLDER
from longlode.core.outputs import full_path
from longlode.core.processes import is_gone, machine_tag
from longlode.core.records import read_record

WATCH_SECONDS = 2.5
"""Time for which runs of other machines are watched for a sign of life; one is due every 2 seconds."""
_SLOW_FACTOR, _SLOW_SECONDS = 5.0, 60.0
"""A unit is slow when it is in hand for this many times the mean time of one, and for so long."""


def status(scores: str | os.PathLike[str], *, watch_seconds: float = WATCH_SECONDS) -> dict[str, Any]:
    """Say how far the runs on a scores folder are, as `longlode status` does; nothing is written.

    Safe while runs are on, also from another machine that sees the folder.

    Args: watch_seconds, how long to watch runs whose process cannot be looked up from here.
    Returns: state ("running", "complete", "stopped": a run can go on there); documents, those that are done, and counts
      of them by status, which add up to them; units_failed and last_error of the runs on; seconds_left, an estimate,
      None where there is none; runs, one {host, pid, shard, seconds, units_done, units_found, bytes_done, bytes,
      documents, tokens, seconds_left, in_hand} each; slow, [{unit, seconds, host}] in hand for unusually long; shards
      {total, missing}, None for a folder without.
    Raises: InputError for a folder that holds no scores and is no beginning of them.
    """
    out = full_path(scores)
    record = read_record(out, "scores") if (out / RECORD_NAME).is_file() else None
    if record is None and not any((out / name).is_dir() for name in LEFTOVERS["scores"]):
        read_record(out, "scores")  # raises, with advice
    runs = _living(out, watch_seconds)
    counts = _counts(out) if runs or record is None else Counter(record["counts"])
    is_complete = record is not None and record.get("complete") is True
    told: dict[str, Any] = {
        "state": "running" if runs else "complete" if is_complete else "stopped",
        "documents": counts.total(),
        "counts": dict(sorted(counts.items())),
        "units_failed": sum(run["units_failed"] for run in runs) if runs else _failed(record),
        "last_error": next((run["last_error"] for run in runs if run["last_error"]), _first_error(record)),
        "seconds_left": _seconds_left(runs),
        "runs": runs,
        "slow": _slow(runs),
        "shards": None if record is None else record.get("shards"),
    }
    assert told["documents"] == sum(told["counts"].values()), "counts add up"
    return told


def _failed(record: dict[str, Any] | None) -> int:
    return 0 if record is None else record.get("num_failed_units", len(record.get("failed_units", [])))


def _first_error(record: dict[str, Any] | None) -> str:
    failed = [] if record is None else record.get("failed_units", [])
    return str(failed[0]["error"]) if failed else ""


def _living(out: Path, watch_seconds: float) -> list[dict[str, Any]]:
    """The files of the runs that are alive."""
    from longlode.mining.engine.claims import read_run, run_files

    found = {path: one for path in run_files(out / RUNS_FOLDER) if (one := read_run(path)) and "run" in one}
    unknown = {path: one for path, one in found.items() if not one["run"].startswith(machine_tag())}
    alive = [one for path, one in found.items() if path not in unknown and not is_gone(one["run"])]
    until = time.monotonic() + watch_seconds
    while unknown and time.monotonic() < until:  # whatever its clock says: what moves is alive
        time.sleep(min(0.2, watch_seconds))
        for path, one in list(unknown.items()):
            now = read_run(path)
            if now is not None and now["beat"] != one["beat"]:
                alive.append(now)
                del unknown[path]
    return sorted(
        (_plain(one) for one in alive), key=lambda one: (str(one["shard"]), str(one["host"]), one["pid"])
    )


def _plain(run: dict[str, Any]) -> dict[str, Any]:
    blank: dict[str, Any] = dict.fromkeys(("host", "shard", "seconds_left", "bytes_per_second"))
    zeros = "pid seconds units_done units_found units_failed bytes_done bytes documents tokens"
    return {**blank, **dict.fromkeys(zeros.split(), 0), "last_error": "", **run}


def _counts(out: Path) -> Counter[str]:
    """Rows by status of the parts that are there, from their footers; a unit that was just merged counts once."""
    from longlode.mining.engine.parts import PARTS_FOLDER, read_summary

    paths = sorted((out / PARTS_FOLDER).glob("*.parquet"))
    infos = [info for path in paths if (info := read_summary(path)) is not None]
    merged = {unit.fingerprint for info in infos for unit in info.units}
    counts: Counter[str] = Counter()
    for info in infos:
        if info.fingerprint not in merged:
            counts.update(info.statuses)
    return counts


def _seconds_left(runs: list[dict[str, Any]]) -> float | None:
    """Shards have work of their own: the last one counts. Runs without share what is left."""
    sharded = [run["seconds_left"] for run in runs if run["shard"]]
    if sharded:
        return None if None in sharded else max(sharded)
    rates = [run["bytes_per_second"] for run in runs]
    if not rates or None in rates or not sum(rates):
        return None
    return round(min(run["bytes"] - run["bytes_done"] for run in runs) / sum(rates), 1)


def _slow(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for run in runs:
        workers = max(1, len(run["in_hand"]))
        mean = run["seconds"] * workers / max(1, run["units_done"])
        limit = max(_SLOW_SECONDS, _SLOW_FACTOR * mean)
        found += [
            {"unit": unit, "seconds": seconds, "host": run["host"]}
            for unit, seconds in run["in_hand"].items()
            if seconds > limit
        ]
    return sorted(found, key=lambda one: -one["seconds"])
