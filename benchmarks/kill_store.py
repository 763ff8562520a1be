"""Kill a run that reads from S3 and writes to S3, run it again, and compare what the store has at the end.

    python -m benchmarks.kill_store [--kills 12] [--seed 0] [--json FILE]

A real S3 server (`benchmarks.s3_store`) has 240 documents in JSON lines, in compressed ones and in Parquet. A trial
runs `longlode score s3://... -o s3://...` with 1 or 2 workers, which copies what is finished twice a second, and sends
SIGKILL at a random moment, in the second half of the trials twice in a row. Then the same command runs to its end: in
turn on the same machine (the same working folder) and on another one (an empty one). What must hold:

    equal     the store has the objects of an undisturbed run, byte for byte but for the times in them
    rows      the counts add up to the documents
    quiet     no traceback; exit status 0

Exit status: 1 with findings.
"""

import argparse
import gzip
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.kill_compare import compare, snapshot
from benchmarks.s3_store import NoStoreError, s3_environment

_DOCUMENTS = 80  # in each of three files
_IN, _OUT = "corpus/in", "corpus/out"
_MOST_SECONDS = 120.0
_RUN = """
import sys
from longlode.corpus import mirror
from longlode.cli import main
if __name__ == "__main__":
    mirror.PUSH_SECONDS = 0.5
    sys.argv[0] = "longlode"
    sys.exit(main())
"""


class StoreBench:
    """A store with a corpus, and runs over it."""

    def __init__(self, work: Path, values: dict[str, str]) -> None:
        """Fill the store. Args: work, an empty folder; values, of the environment."""
        os.environ.update(values)
        import s3fs

        self.work, self.store = work, s3fs.S3FileSystem()
        self.script = work / "run.py"
        self.script.write_text(_RUN)
        draw = random.Random(3)
        words = ["river", "captain", "letter", "garden", "winter", "window"]
        rows = [
            {"id": f"d{n}", "text": " ".join(draw.choices(words, k=20 + n % 30))}
            for n in range(3 * _DOCUMENTS)
        ]
        lines = [json.dumps(row).encode() + b"\n" for row in rows]
        table = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows[2 * _DOCUMENTS :]), table, row_group_size=20)
        self.store.mkdir("corpus")
        self.store.pipe(f"{_IN}/a.jsonl", b"".join(lines[:_DOCUMENTS]))
        self.store.pipe(f"{_IN}/b.jsonl.gz", gzip.compress(b"".join(lines[_DOCUMENTS : 2 * _DOCUMENTS])))
        self.store.pipe(f"{_IN}/c.parquet", table.getvalue())

    def run(
        self, machine: str, workers: int, kill_after: float | None = None
    ) -> tuple[int | None, str, float]:
        """Score. Args: machine, names the working folder; kill_after, seconds.

        Returns: the exit status, None when it was killed; what it said; seconds.
        """
        options = ["--scorer", "gzip", "--rows-per-unit", "4", "--units-per-part", "3", "--no-explain"]
        command = [sys.executable, str(self.script), "score", f"s3://{_IN}", "-o", f"s3://{_OUT}", *options]
        environment = {**os.environ, "LONGLODE_STAGING": str(self.work / machine)}
        begun = time.monotonic()
        process = subprocess.Popen(
            [*command, "--workers", str(workers)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=_MOST_SECONDS if kill_after is None else kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
            return None, said, time.monotonic() - begun
        return process.returncode, said, time.monotonic() - begun

    def clear(self) -> None:
        """Remove the results, and all machines."""
        self.store.invalidate_cache()
        if self.store.exists(_OUT):
            self.store.rm(_OUT, recursive=True)
        for folder in self.work.glob("machine-*"):
            shutil.rmtree(folder)

    def objects(self) -> dict[str, str]:
        """What the store has of the results, as of `kill_compare.snapshot`."""
        here = self.work / "fetched"
        shutil.rmtree(here, ignore_errors=True)
        self.store.invalidate_cache()
        self.store.get(_OUT, str(here), recursive=True)
        return {name: digest for name, digest in snapshot(here).items() if digest != "folder"}


def measure(bench: StoreBench, kills: int, seed: int) -> dict[str, Any]:
    """All trials. Returns: their number, how many were killed, and the findings."""
    status, said, seconds = bench.run("machine-0", 1)
    if status != 0:
        raise SystemExit(f"the command does not run undisturbed:\n{said}")
    wanted = bench.objects()
    draw = random.Random(seed)
    num_killed, findings = 0, []
    for number in range(kills):
        bench.clear()
        machines = [f"machine-{number}", f"machine-{number}-b" if number % 2 else f"machine-{number}"]
        # One in each of equal spans, so that a few trials already reach the whole command, and its end.
        moments = [seconds * (number + draw.random()) / kills]
        moments += [seconds * draw.random()] if number >= kills // 2 else []
        for moment in moments:
            status, said, _ = bench.run(machines[0], 1 + number % 3 % 2, moment)
            num_killed += status is None
            if "Traceback" in said:
                findings.append({"trial": number, "what": "traceback of a killed run", "detail": said[-800:]})
        status, said, _ = bench.run(machines[-1], 1 + number % 2)
        if status != 0 or "Traceback" in said:
            findings.append({"trial": number, "what": f"status {status}", "detail": said[-800:]})
            continue
        if unlike := compare(wanted, bench.objects()):
            findings.append({"trial": number, "what": "differs", "detail": str(unlike)})
        record = json.loads(bench.store.cat(f"{_OUT}/record.json"))
        if record["counts"] != {"ok": 3 * _DOCUMENTS}:
            findings.append({"trial": number, "what": "rows", "detail": str(record["counts"])})
    return {
        "num_trials": kills,
        "num_killed": num_killed,
        "num_findings": len(findings),
        "findings": findings,
    }


def main() -> int:
    """Run the trials. Returns: the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    asked = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="longlode-kill-store-") as folder, s3_environment() as values:
            result = measure(StoreBench(Path(folder), values), asked.kills, asked.seed)
    except NoStoreError as error:
        raise SystemExit(f"no S3 store: {error}") from None
    if asked.json:
        asked.json.write_text(json.dumps(result))
    print(json.dumps(result, indent=2))
    return int(bool(result["findings"]))


if __name__ == "__main__":
    sys.exit(main())
