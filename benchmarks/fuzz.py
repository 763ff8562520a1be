"""Give damaged input of every kind to what reads it: does anything crash, hang, or lose what was good?

    python -m benchmarks.fuzz --seed 0 --mutants 2000 [--kinds jsonl,parquet] [--save]
    python -m benchmarks.fuzz --seed 0 --replay "parquet|17"

Kinds: corpora (jsonl, gz, zst, txt, parquet, arrow) and recipes (fuzz_readers.py), web archives (wet, warc;
fuzz_archives.py), read by functions; folders of our
own (parts, shards, checkpoints, model, state ...) and the commands that read them (fuzz_folders.py), a tenth as many
each, because a command takes longer. A mutant is a small valid input with one to four changes (fuzz_mutate.py); its
number and the seed make it again. What must hold: no exception that is not a LonglodeError, no crash, no hang above
20 seconds, and what the two files say of good rows and results. Exit status: 1 with findings.
"""

import argparse
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.fuzz_archives import ARCHIVES
from benchmarks.fuzz_folders import FOLDERS
from benchmarks.fuzz_readers import READERS, Kind
from benchmarks.kill_sums import add_up
from benchmarks.saved import about, save

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*READERS, *ARCHIVES, *FOLDERS)}
_BATCH = 100
_MEMORY = 12 << 30
"""Address space that a mutant may ask for; more is a MemoryError, and a finding."""


def try_numbers(kind: Kind, seed: int, numbers: Sequence[int], work: Path) -> list[dict[str, Any]]:
    """Try these mutants, in a child as long as it lives. Returns: findings {kind, number, what}."""
    findings = []
    left = list(numbers)
    while left:
        done, found, end = _batch(kind, seed, left[:_BATCH], work)
        findings += [{"kind": kind.name, "number": number, "what": what} for number, what in found]
        if end:
            findings.append({"kind": kind.name, "number": left[done], "what": end})
        left = left[done + bool(end) :]
    return findings


def _batch(
    kind: Kind, seed: int, numbers: Sequence[int], work: Path
) -> tuple[int, list[tuple[int, str]], str]:
    """Try mutants one after the other in one child. Returns: how many it told of, findings, and its end if bad."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_child(kind, seed, numbers, work, writing)
    os.close(writing)
    done, found, end, buffer = 0, [], "", b""
    while True:
        ready, _, _ = select.select([reading], [], [], kind.limit)
        piece = os.read(reading, 1 << 16) if ready else b""
        if not piece:
            break
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in lines:
            if line:
                found.append((numbers[done], line.decode("utf-8", "replace")))
            done += 1
    if not ready:
        end = f"hung: more than {kind.limit:g} s"
        os.kill(child, signal.SIGKILL)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if not end and done < len(numbers):
        end = f"the process died: {os.waitstatus_to_exitcode(status)}"
    return done, found, end


def _be_child(kind: Kind, seed: int, numbers: Sequence[int], work: Path, pipe: int) -> None:
    """Never returns. Writes a line for every mutant: what is wrong, empty if nothing is."""
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        for number in numbers:
            what = try_mutant(kind, seed, number, work)
            os.write(pipe, " ".join(what.split()).encode("utf-8", "replace")[:2000] + b"\n")
    finally:
        os._exit(0)


def try_mutant(kind: Kind, seed: int, number: int, work: Path) -> str:
    """Make one mutant and try it. Returns: what is wrong, "" if nothing is."""
    place = work / "mutant"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        return kind.try_one(random.Random(f"{seed} {kind.name} {number}"), work / "template", place)
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:300]} ({Path(last.filename).name}:{last.lineno})"


def measure(kinds: Sequence[Kind], seed: int, num_mutants: int, work: Path, first: int = 0) -> dict[str, Any]:
    """Mutants of all kinds: of readers each an equal part, of folders a tenth of that. Returns: rows, findings."""
    (work / "template").mkdir()
    weights = [1.0 if kind in READERS else 0.1 for kind in kinds]
    rows, findings = [], []
    for kind, weight in zip(kinds, weights, strict=True):
        kind.prepare(work / "template")
        number = max(1, round(num_mutants * weight / sum(weights)))
        found = try_numbers(kind, seed, range(first, first + number), work)
        rows.append({"kind": kind.name, "mutants": number, "findings": len(found)})
        findings += found
        print(f"{kind.name}: {number} mutants, {len(found)} findings", file=sys.stderr, flush=True)
    total = sum(row["mutants"] for row in rows)
    return {"rows": rows, "num_mutants": total, "num_findings": len(findings), "findings": findings}


def table(result: dict[str, Any], most: int = 12) -> list[str]:
    """For people, in Markdown. Args: most, findings to show of a kind."""
    lines = ["| kind | mutants | findings |", "|---|---|---|"]
    total = {"kind": "all", "mutants": result["num_mutants"], "findings": result["num_findings"]}
    lines += [
        f"| {row['kind']} | {row['mutants']:,} | {row['findings']} |" for row in [*result["rows"], total]
    ]
    for row in result["rows"]:
        of_kind = [finding for finding in result["findings"] if finding["kind"] == row["kind"]]
        lines += [f"- {one['kind']}|{one['number']}: {one['what']}" for one in of_kind[:most]]
    return lines


def replay(text: str, seed: int, work: Path) -> int:
    """Try one mutant again, in this process, and keep its files. Returns: exit status."""
    name, number = text.rsplit("|", 1)
    kind = KINDS[name]
    (work / "template").mkdir()
    kind.prepare(work / "template")
    what = try_mutant(kind, seed, int(number), work)
    print(what or "nothing is wrong", f"\nits files: {work / 'mutant'}")
    return int(bool(what))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mutants", type=int, default=1000, help="in all")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant of each kind")
    parser.add_argument("--kinds", help=f"comma-separated; default: all ({', '.join(KINDS)})")
    parser.add_argument("--replay", help="KIND|NUMBER of a finding")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument(
        "--add", type=Path, nargs="+", help="run nothing: add up what --json wrote, for --save"
    )
    parser.add_argument("--save", action="store_true", help="write a dated table to benchmarks/results/")
    arguments = parser.parse_args()
    if arguments.add:
        told = add_up(arguments.add, "kind")
        print("\n".join(lines := table(told)))
        if arguments.save:
            commands = [f"`{run['command']}`  " for run in told["runs"]]
            save("fuzz", told, "\n".join(["# Damaged input", "", *commands, "", *lines]))
        return
    names = arguments.kinds.split(",") if arguments.kinds else list(KINDS)
    if unknown := [name for name in names if name not in KINDS]:
        parser.error(f"unknown: {', '.join(unknown)}; expected some of {', '.join(KINDS)}")
    work = Path(tempfile.mkdtemp(prefix="longlode-fuzz-"))
    if arguments.replay:
        sys.exit(replay(arguments.replay, arguments.seed, work))
    try:
        result = measure(
            [KINDS[name] for name in names], arguments.seed, arguments.mutants, work, arguments.first
        )
    finally:
        shutil.rmtree(work)
    lines = table(result)
    print("\n".join(lines))
    made_by = about("fuzz") | {"seed": arguments.seed}
    if arguments.json:
        from longlode.core.records import write_json

        write_json(arguments.json, made_by | result)
    if arguments.save:
        save(
            "fuzz",
            made_by | result,
            "\n".join(["# Damaged input", "", f"`{made_by['command']}`", "", *lines]),
        )
    sys.exit(1 if result["num_findings"] else 0)


if __name__ == "__main__":
    main()
