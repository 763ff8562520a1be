"""A run over a million documents that is killed midway and goes on; the same over a tenth, so that the slope shows.

    python -m benchmarks.engine --million [--documents 1000000] [--workers 2] [--only scored|refused] [--save]

For a tenth of --documents, then for all, documents of 2 kB in 8 files of JSON lines, as whole commands:

    killed        longlode score, SIGKILL to the process once half of the documents are done (workers end with it)
    resumed       the same command, to its end; first_new: seconds until it does something new
    checked       the same command again: nothing is left to do, sizes and times of parts are compared
    verified      the same with --verify: all parts are hashed
    selected      longlode select --top 0.1

and the start: the same command over 8 documents. --only scored: --scorer gzip, every document has a score (default);
refused: the default scorer, for which 2 kB are too short. Checked: each row once, none lost by the kill. Printed:
seconds, seconds of CPU of all processes (not of the workers that a kill ended), most memory (resident) of the command's
process and of its largest worker, and what the folder holds.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.engine import SHORT_BYTES, Run, generated_text, measured, write_files
from benchmarks.saved import about, save
from longlode.core.records import read_record

_POLL_SECONDS = 0.05
_MOST_SECONDS = 3600.0


def run_million(asked: argparse.Namespace) -> None:
    """Measure, print, and save if asked."""
    text = generated_text()
    sizes = (max(8, asked.documents // 10), asked.documents)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="longlode-million-") as folder:
        for size in sizes:
            rows.append(one_size(Path(folder), text, size, asked))
            print(as_table([rows[-1]]), flush=True)
    result = {"workers": asked.workers, "scorer": asked.only, "load": os.getloadavg(), "rows": rows}
    if asked.save:
        save("engine-million", {**about("engine"), **result}, as_table(rows))


def one_size(work: Path, text: str, size: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Measure a corpus of one size, and remove it."""
    source, few, out = work / f"in-{size}", work / f"few-{size}", work / f"out-{size}"
    write_files(source, text, size, SHORT_BYTES)
    write_files(few, text, 8, SHORT_BYTES)
    command = [sys.executable, "-m", "longlode", "score", "--workers", str(asked.workers), "--no-explain"]
    command += ["--scorer", "gzip"] if asked.only == "scored" else []
    start = measured([*command, str(few), "-o", str(work / f"start-{size}")])
    score = [*command, str(source), "-o", str(out)]
    killed, done_before = kill_at(score, out, size // 2)
    first: dict[str, float] = {}
    with watching(out, lambda seen: seen["documents"] > done_before, first):
        resumed = measured(score)
    check(out, size, "ok" if asked.only == "scored" else "too_short")
    runs = {"start": start, "killed": killed, "resumed": resumed, "checked": measured(score)}
    runs["verified"] = measured([*score, "--verify"])
    if asked.only == "scored":
        kept = work / f"kept-{size}.jsonl"
        select = [sys.executable, "-m", "longlode", "select", str(out), "-o", str(kept), "--top", "0.1"]
        runs["selected"] = measured(select)
        assert abs(kept.read_bytes().count(b"\n") - size / 10) <= 1, "a tenth is selected"
        kept.unlink()
    found = {
        "documents": size,
        "done_at_kill": done_before,
        "first_new_seconds": first.get("seconds"),
        "runs": {name: vars(run) for name, run in runs.items()},
        **held_by(out),
    }
    for path in (source, few, out):
        subprocess.run(["rm", "-r", str(path)], check=True)
    return found


def kill_at(command: Sequence[str], out: Path, documents: int) -> tuple[Run, int]:
    """Start a command and end it by SIGKILL when that many documents are done. Returns: the run, and how many were."""
    seen: dict[str, float] = {}
    pids: list[int] = []
    with watching(
        out,
        lambda found: found["documents"] >= documents,
        seen,
        lambda: [os.kill(pid, signal.SIGKILL) for pid in pids],  # type: ignore[func-returns-value]
    ):
        run = measured(command, started=pids.append, statuses=(-signal.SIGKILL,))
    return run, int(seen["documents"])


class watching:
    """While in it, the file of the run on a folder is read until it is as wanted; then its fields are kept."""

    def __init__(
        self,
        out: Path,
        wanted: Callable[[dict[str, Any]], bool],
        seen: dict[str, float],
        then: Callable[[], object] = lambda: None,
    ) -> None:
        """Args: seen, gets "documents" and "seconds" since the start; then, called at that moment."""
        self._out, self._wanted, self._seen, self._then = out, wanted, seen, then
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        """Start to watch."""
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        """End watching."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        started = time.monotonic()
        old = set((self._out / "runs").glob("*.json")) if self._out.is_dir() else set()
        while not self._ended.wait(_POLL_SECONDS) and time.monotonic() - started < _MOST_SECONDS:
            for path in set((self._out / "runs").glob("*.json")) - old:
                try:
                    found = json.loads(path.read_bytes())
                except (OSError, ValueError):  # it is being replaced
                    continue
                if self._wanted(found):
                    self._seen |= {
                        "documents": found["documents"],
                        "seconds": time.monotonic() - started,
                    }
                    self._then()
                    return


def check(out: Path, size: int, status: str) -> None:
    """Raise AssertionError unless each input row has one row of that status."""
    record = read_record(out, "scores")
    assert record["complete"], "the run has ended"
    assert record["counts"] == {status: size}, f"{record['counts']}, expected {size} {status}"
    names = [str(out / "parts" / entry["part"]) for entry in record["parts"]]
    with duckdb.connect() as base:
        (different,) = base.execute(
            "SELECT count(DISTINCT file || '#' || row) FROM read_parquet(?, hive_partitioning=false)", [names]
        ).fetchall()[0]
    assert different == size, f"{different} different rows of {size}"


def held_by(out: Path) -> dict[str, Any]:
    """What a scores folder holds: numbers of files, and bytes."""
    bytes_of = {name: [path.stat().st_size for path in (out / name).iterdir()] for name in ("parts", "plan")}
    return {
        "parts": len(bytes_of["parts"]),
        "parts_bytes": sum(bytes_of["parts"]),
        "plan_bytes": sum(bytes_of["plan"]),
        "record_bytes": (out / "record.json").stat().st_size,
    }


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """The results as tables in Markdown."""
    lines = []
    for row in rows:
        first = row["first_new_seconds"]
        lines += [
            f"{row['documents']:,} documents: {row['done_at_kill']:,} were done at the kill; "
            f"the resumed run did something new after {'?' if first is None else f'{first:.1f}'} s; "
            f"{row['parts']:,} parts of {row['parts_bytes'] / 1e6:.1f} MB in all, plan "
            f"{row['plan_bytes'] / 1e3:.0f} kB, record.json {row['record_bytes'] / 1e3:.1f} kB",
            "",
            "| command | seconds | CPU seconds | MB, itself | MB, largest worker |",
            "|---|---|---|---|---|",
        ]
        for name, run in row["runs"].items():
            cells = [f"{run[field]:,.1f}" for field in ("seconds", "cpu_seconds")]
            cells += [f"{run[field]:,.0f}" for field in ("own_mb", "worker_mb")]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)
