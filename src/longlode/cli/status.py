"""longlode status: how far the runs on a scores folder are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from longlode.cli.console import note, say, table

EXAMPLES = ("longlode status scores", "longlode status /shared/scores --json")


def status(
    scores: Annotated[Path, typer.Argument(help="A folder that longlode score writes to, or has written.")],
) -> dict[str, Any]:
    """Show how far scoring is: documents by status, what fails, what is slow, how long it will take.

    Reads only, also while runs are on, and from any machine that sees the folder. Each run on the folder has a line:
    several of them, on one machine or many, share the work, or have a shard each.
    """
    from longlode.api.status import status as find

    told = find(scores)
    counts = ", ".join(f"{count:,} {name}" for name, count in told["counts"].items())
    say(f"{told['state']}: {told['documents']:,} documents done" + (f" ({counts})" if counts else ""))
    if told["runs"]:
        table(
            "Runs",
            ["host", "pid", "shard", "units", "share", "documents", "tokens", "time so far", "time left"],
            [_line(run) for run in told["runs"]],
        )
        say(f"time left in all: {_time(told['seconds_left'])}")
    if told["shards"]:
        missing = told["shards"]["missing"]
        say(
            f"shards: {told['shards']['total'] - len(missing)} of {told['shards']['total']} complete"
            + (f"; missing: {', '.join(map(str, missing))}" if missing else "")
        )
    for one in told["slow"]:
        note(f"slow: the unit {one['unit']} is in hand for {_time(one['seconds'])} on {one['host']}")
    if told["units_failed"]:
        note(f"{told['units_failed']:,} units failed as a whole; for example: {escape(told['last_error'])}")
    if told["state"] == "stopped":
        note("No run is on. The same score command goes on where it stopped.")
    return told


def _line(run: dict[str, Any]) -> list[object]:
    share = run["bytes_done"] / run["bytes"] if run["bytes"] else 0.0
    return [
        run["host"],
        str(run["pid"]),
        run["shard"] or "all",
        run["units_done"],
        f"{share:.1%}",
        run["documents"],
        run["tokens"],
        _time(run["seconds"]),
        _time(run["seconds_left"]),
    ]


def _time(seconds: float | None) -> str:
    """Hours, minutes and seconds; "unknown" for None."""
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after Ctrl-C."""
    return f"Nothing was changed in {options['scores']}."
