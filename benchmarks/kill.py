"""Kill a command at any moment, run it again, and compare: is anything lost, doubled or left behind?

    python -m benchmarks.kill --seed 0 --kills 200 --faults 60 [--commands score,pack,train] [--save]
    python -m benchmarks.kill --replay "pack|torn|17"

A trial takes a fresh copy of a small corpus, model, shards, run and scores (kill_cases.py), starts a command there, and
disturbs it: SIGKILL before its n-th file operation, or after half of it (a torn write), or at a random moment; with
--faults the n-th operation fails (EIO once, EIO from there on, a full disk from there on) and the command must end by
itself. Then the same command runs again, undisturbed. What must hold, in every trial:

    equal     every file is that of an undisturbed run, byte for byte but for the times in it (kill_compare.py)
    rows      the scores hold each input row exactly once
    clean     no other file is there: no temporary, no half of an old result
    quiet     no traceback, no "This should not have happened", exit status 0, 1 or 2; a command that fails and says 0
              has written what an undisturbed run writes
    ends      within 20 seconds

With --others, scoring is disturbed in more ways (kill_others.py): SIGTERM, files that are damaged between two runs,
claims of a run that stands still, and kills in a row with 1, 2 and 4 workers. `python -m benchmarks.kill_store` kills
runs from S3 to S3.

The n are spread over all of the command's operations. Exit status: 1 with findings.
"""

import argparse
import collections
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.kill_cases import (
    CASES,
    PREPARE,
    Case,
    named,
    needed,
    rows_of_inputs,
    rows_of_scores,
    write_corpus,
    write_model,
)
from benchmarks.kill_child import LIMIT_SECONDS, Outcome, command, import_what_it_imports, run_call
from benchmarks.kill_compare import compare, snapshot
from benchmarks.kill_faults import ERRORS, KILLS, Shim, make_shim
from benchmarks.kill_others import (
    AGAIN,
    DAMAGE,
    LEASE_VARIABLE,
    OTHERS,
    SIGTERM,
    STALE,
    claim_all,
    damage,
    forget_claim,
    with_workers,
)
from benchmarks.kill_sums import add_up
from benchmarks.saved import about, save

MOMENT = "moment"
_BAD_WORDS = {"traceback": "Traceback (most recent call last)", "unexpected": "This should not have happened"}
_FINE_STATUS = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One disturbance. at: the operation, from 1; of MOMENT: milliseconds."""

    case: Case
    kind: str
    at: int

    def __str__(self) -> str:
        """As --replay takes it."""
        return f"{self.case.name}|{self.kind}|{self.at}"


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """What a case leaves, how many file operations it takes, and how long."""

    files: dict[str, str]
    operations: int
    seconds: float


@dataclass
class Tally:
    """What became of a case's trials. findings: {trial, what, detail}."""

    num_trials: int = 0
    num_killed: int = 0
    num_failed: int = 0
    num_unreached: int = 0
    findings: list[dict[str, str]] = field(default_factory=list)


class Bench:
    """The template folder, and trials on copies of it."""

    def __init__(self, work: Path, shim: Shim) -> None:
        """Args: work, an empty folder."""
        self.template, self.place, self.log = work / "template", work / "trial", work / "log"
        self.shim = shim

    def prepare(self, cases: Sequence[Case]) -> None:
        """Fill the template, and import what the commands import."""
        self.template.mkdir()
        write_corpus(self.template)
        for name in needed(cases):
            call = (lambda: write_model(self.template)) if name == "model" else command(PREPARE[name])
            outcome = import_what_it_imports(call, self.log, self.template)
            if outcome.status:
                raise SystemExit(f"the template could not be made:\n{outcome.output}")
        for case in cases:
            self._fresh()
            import_what_it_imports(command(case.first), self.log, self.place)

    def undisturbed(self, case: Case) -> Undisturbed:
        """Run a case to its end, twice, and see that both leave the same. Raises: SystemExit when they do not."""
        runs = []
        for _ in range(2):
            self._fresh()
            outcome = self.run(case.first, count=True)
            if outcome.status:
                raise SystemExit(f"{case.name} does not run undisturbed:\n{outcome.output}")
            files = snapshot(self.place)
            runs.append(Undisturbed(files=files, operations=outcome.operations or 0, seconds=outcome.seconds))
        if unlike := compare(runs[0].files, runs[1].files):
            raise SystemExit(f"{case.name}: two undisturbed runs differ: {unlike}")
        return runs[0]

    def run(self, arguments: Sequence[str], *, count: bool = False, trial: Trial | None = None) -> Outcome:
        """Run a command in the trial folder, disturbed as `trial` says."""
        call, at_end = command(arguments), None
        is_timed = trial is not None and trial.kind in (MOMENT, *OTHERS)
        moment = trial.at / 1000 if trial is not None and is_timed else None
        signal_number = signal.SIGTERM if trial is not None and trial.kind == SIGTERM else signal.SIGKILL
        if count or (trial is not None and moment is None):
            kind, at = ("count", 0) if trial is None else (trial.kind, trial.at)
            at_end = self.shim.disarm

            def call() -> int:
                self.shim.arm(self.place, kind, at)
                return command(arguments)()

        timed = {"kill_after": moment, "signal_number": signal_number}
        return run_call(call, self.log, folder=self.place, at_end=at_end, **timed)

    def try_once(self, trial: Trial, wanted: Undisturbed, tally: Tally) -> None:
        """Disturb, run again, judge."""
        self._fresh()
        tally.num_trials += 1
        first = self.run(trial.case.first, trial=trial)
        faults = list(_faults_of(first, "disturbed"))
        tally.num_killed += first.killed
        tally.num_failed += not first.killed and first.status != 0
        if first.status == 0:
            unlike = compare(wanted.files, snapshot(self.place))
            unlike.pop("leftover", None)  # what could not be removed is the next run's to remove
            faults += [("said 0", _short(unlike))] if unlike else []
        tally.num_unreached += not first.killed and first.status == 0
        faults += self._meanwhile(trial, wanted)
        faults += self._again(trial.case, wanted)
        for what, detail in faults:
            tally.findings.append({"trial": str(trial), "what": what, "detail": detail})

    def _meanwhile(self, trial: Trial, wanted: Undisturbed) -> Iterator[tuple[str, str]]:
        """What happens to the folder before the command runs again."""
        draw = random.Random(str(trial))
        folder = self.place / trial.case.scores
        if trial.kind == DAMAGE:
            damage(folder, draw)
        if trial.kind == STALE:
            units = [Path(name).stem for name in wanted.files if f"{trial.case.scores}/parts/" in name]
            claim_all(folder, units, draw)
        if trial.kind == AGAIN:
            numbers = iter(draw.sample((1, 2, 4), 3))
            for _ in range(2):
                moment = max(1, int(draw.random() * wanted.seconds * 1000))
                words = with_workers(trial.case.first, numbers)
                outcome = self.run(words, trial=Trial(case=trial.case, kind=MOMENT, at=moment))
                yield from _faults_of(outcome, "in between")

    def _again(self, case: Case, wanted: Undisturbed) -> Iterator[tuple[str, str]]:
        last = None
        for arguments in case.retries:
            last = self.run(arguments)
            yield from _faults_of(last, "again")
            if last.status == 0:
                break
        assert last is not None, "every case has a retry"
        if case.scores:
            forget_claim(self.place / case.scores)
        unlike = compare(wanted.files, snapshot(self.place))
        if last.status and unlike:
            yield "stuck", f"{last.output.strip()[-300:]} {_short(unlike)}"
        elif unlike:
            for kind, names in unlike.items():
                yield kind, ", ".join(names[:6])
        if case.scores:
            yield from self._rows(case)

    def _rows(self, case: Case) -> Iterator[tuple[str, str]]:
        def count() -> int:
            rows = rows_of_scores(self.place / case.scores)
            print(len(rows), len(set(rows)))
            return 0

        expected = f"{rows_of_inputs()} {rows_of_inputs()}"
        outcome = run_call(count, self.log, folder=self.place)
        if outcome.output.strip() != expected:
            yield "rows", f"got {outcome.output.strip()[-200:]}, expected {expected}"

    def _fresh(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.template, self.place)


def _faults_of(outcome: Outcome, when: str) -> Iterator[tuple[str, str]]:
    """What may not be, however the command ended."""
    end = outcome.output.strip()[-300:]
    if outcome.hung:
        yield f"hang, {when}", f"more than {LIMIT_SECONDS:g} s: {end}"
    elif not (outcome.killed or outcome.status in (*_FINE_STATUS, -signal.SIGTERM)):
        yield f"status {outcome.status}, {when}", end
    for what, words in _BAD_WORDS.items():
        if words in outcome.output:
            yield f"{what}, {when}", " ".join(outcome.output.split(words)[1].split())[:300]


def _short(unlike: dict[str, list[str]]) -> str:
    return "; ".join(f"{kind}: {', '.join(names[:4])}" for kind, names in unlike.items())


def plan(
    case: Case, wanted: Undisturbed, num_kills: int, num_faults: int, num_others: int, draw: random.Random
) -> list[Trial]:
    """Trials of one case: kinds in turn, each at operations spread over all of them in a random order."""
    last_moment = max(2, round(wanted.seconds * 1050))
    kinds = [MOMENT] if case.by_time else [*KILLS, *KILLS, MOMENT]
    chosen = list(itertools.islice(itertools.cycle(kinds), num_kills))
    if not case.by_time:
        chosen += itertools.islice(itertools.cycle(ERRORS), num_faults)
    if case.scores:
        chosen += itertools.islice(itertools.cycle(OTHERS), num_others)
    counts = collections.Counter(chosen)
    trials = []
    for kind, number in counts.items():
        most = last_moment if kind in (MOMENT, *OTHERS) else wanted.operations
        # One in each of `number` equal spans, so that a few trials already reach the whole command.
        spans = [(most * i / number, most * (i + 1) / number) for i in range(number)]
        trials += [Trial(case=case, kind=kind, at=min(most, 1 + int(draw.uniform(*span)))) for span in spans]
    draw.shuffle(trials)
    return trials


def measure(
    bench: Bench, cases: Sequence[Case], seed: int, num_kills: int, num_faults: int, num_others: int = 0
) -> dict[str, Any]:
    """All trials of all cases. Returns: rows, by case; totals; findings."""
    bench.prepare(cases)
    rows, findings = [], []
    for number, case in enumerate(cases):
        wanted = bench.undisturbed(case)
        kills, faults = (
            total * (number + 1) // len(cases) - total * number // len(cases)
            for total in (num_kills, num_faults)
        )
        scored = [one for one in cases if one.scores]
        others = 0
        if case.scores:
            place = scored.index(case)
            others = num_others * (place + 1) // len(scored) - num_others * place // len(scored)
        tally = Tally()
        for trial in plan(case, wanted, kills, faults, others, random.Random(f"{seed} {case.name}")):
            bench.try_once(trial, wanted, tally)
        findings += tally.findings
        counted = {name: value for name, value in asdict(tally).items() if name != "findings"}
        rows.append(
            {"case": case.name, "operations": wanted.operations, **counted, "findings": len(tally.findings)}
        )
        print(
            f"{case.name}: {tally.num_trials} trials, {len(tally.findings)} findings",
            file=sys.stderr,
            flush=True,
        )
    totals = (
        {name: sum(row[name] for row in rows) for name in rows[0] if name.startswith("num_")} if rows else {}
    )
    return {"rows": rows, **totals, "num_findings": len(findings), "findings": findings}


def table(result: dict[str, Any]) -> list[str]:
    """For people, in Markdown."""
    columns = {
        "case": "command",
        "operations": "file operations",
        "num_trials": "trials",
        "num_killed": "killed",
        "num_failed": "ended by a write error",
        "num_unreached": "ended well all the same",
        "findings": "findings",
    }
    lines = ["| " + " | ".join(columns.values()) + " |", "|---" * len(columns) + "|"]
    total = {**result, "case": "all", "operations": "", "findings": result["num_findings"]}
    for row in [*result["rows"], total]:
        lines.append("| " + " | ".join(str(row[name]) for name in columns) + " |")
    by_kind = collections.Counter((one["trial"].split("|")[0], one["what"]) for one in result["findings"])
    for (case, what), number in by_kind.items():
        example = next(
            f for f in result["findings"] if f["what"] == what and f["trial"].startswith(f"{case}|")
        )
        lines.append(
            f"- {case}: {what}, {number} times; for example --replay '{example['trial']}': {example['detail']}"
        )
    return lines


def replay(bench: Bench, text: str) -> int:
    """Run one trial again, and show all of it. Returns: exit status."""
    name, kind, at = text.rsplit("|", 2)
    [case] = [case for case in CASES if case.name == name]
    bench.prepare([case])
    wanted = bench.undisturbed(case)
    tally = Tally()
    bench.try_once(Trial(case=case, kind=kind, at=int(at)), wanted, tally)
    print(tally)
    print(f"the folder of the trial: {bench.place}")
    return int(bool(tally.findings))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=100, help="in all; cases in equal parts")
    parser.add_argument("--faults", type=int, default=0, help="write errors, in all")
    parser.add_argument("--others", type=int, default=0, help="other disturbances of scoring, in all")
    parser.add_argument("--commands", help="names of commands or cases, comma-separated; default: all")
    parser.add_argument("--replay", help="run one trial of a finding, and show what it prints")
    parser.add_argument("--python-shim", action="store_true", help="do without the C library")
    parser.add_argument(
        "--work", type=Path, help="an empty folder to work in, kept; default: a temporary one"
    )
    parser.add_argument("--save", action="store_true", help="write a dated table to benchmarks/results/")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument(
        "--add", type=Path, nargs="+", help="run nothing: add up what --json wrote, for --save"
    )
    arguments = parser.parse_args()
    if arguments.add:
        told = add_up(arguments.add, "case")
        print("\n".join(lines := table(told)))
        if arguments.save:
            save(
                "kill",
                told,
                "\n".join(["# Kills", "", *(f"`{run['command']}`  " for run in told["runs"]), "", *lines]),
            )
        return
    shim = make_shim("benchmarks.kill", native=not arguments.python_shim)
    os.environ[LEASE_VARIABLE] = "1"  # so that claims that stand still lapse while a trial waits
    # Not a TemporaryDirectory: its removal is an exit function, and children run those.
    work = (arguments.work or Path(tempfile.mkdtemp(prefix="longlode-kill-"))).resolve()
    try:
        bench = Bench(work, shim)
        if arguments.replay:
            sys.exit(replay(bench, arguments.replay))
        names = arguments.commands.split(",") if arguments.commands else [case.name for case in CASES]
        numbers = (arguments.kills, arguments.faults, arguments.others)
        result = measure(bench, named(names), arguments.seed, *numbers)
    finally:
        if arguments.work is None:
            shutil.rmtree(work)
    lines = table(result)
    print("\n".join(lines))
    made_by = about("kill") | {"shim": shim.name, "limit_seconds": LIMIT_SECONDS, "seed": arguments.seed}
    if arguments.json:
        from longlode.core.records import write_json

        write_json(arguments.json, made_by | result)
    if arguments.save:
        save("kill", made_by | result, "\n".join(["# Kills", "", f"`{made_by['command']}`", "", *lines]))
    sys.exit(1 if result["num_findings"] else 0)


if __name__ == "__main__":
    main()
