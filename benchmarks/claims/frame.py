"""One form for all claims of papers that are rerun here: what is claimed, what was done, the table, the verdict.

A claim is a module `benchmarks/claims/NAME.py` with a `Claim` and a function that trains or measures what is missing
and returns a `Finding`; `run` reads the command line that all share, prints the page, and with --save writes a dated
one. The verdict is computed from the figures, never written by hand.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.mixers_accuracy import text_rows
from benchmarks.saved import about, save
from longlode.evaluate.bench import ROW_TASKS

HOLDS, PARTLY, FAILS, OPEN = "holds here", "holds in part", "does not hold here", "not measured yet"


@dataclass(frozen=True)
class Claim:
    """What a paper says.

    name: of the module.   title: in a few words.   paper: the claim, its size and source.   here: what is done.
    limits: what the rerun cannot show.
    """

    name: str
    title: str
    paper: str
    here: str
    limits: str


@dataclass
class Finding:
    """What was seen.

    heads, rows: the table.   verdict: HOLDS, PARTLY, FAILS or OPEN.   seen: a sentence, also where it fails.
    seeds: of each figure, 0 where nothing is drawn.   figures: numbers for the JSON.
    """

    heads: Sequence[str]
    rows: list[Sequence[str]]
    verdict: str
    seen: str
    seeds: int
    figures: dict[str, Any] = field(default_factory=dict)


def ordered(better: Sequence[float], worse: Sequence[float]) -> str:
    """The verdict on "`better` is above `worse`", one number per seed.

    HOLDS if every seed of the one is above every seed of the other, PARTLY if the mean is, otherwise FAILS.
    """
    if not better or not worse:
        return OPEN
    if min(better) > max(worse):
        return HOLDS
    return PARTLY if sum(better) / len(better) > sum(worse) / len(worse) else FAILS


def all_of(verdicts: Sequence[str]) -> str:
    """The verdict on several statements together."""
    if not verdicts or OPEN in verdicts:
        return OPEN
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return PARTLY


def seeds_of(finding: Finding) -> str:
    """The number of seeds behind the figures, "1-3" where some have fewer."""
    counts = {len(numbers) for numbers in _lists(finding.figures)} - {0}
    return "-".join(str(one) for one in sorted({min(counts), max(counts)})) if counts else "none yet"


def _lists(figures: Any) -> list[list[float]]:
    """The lists of a figure per seed, at any depth."""
    if isinstance(figures, list):
        return [figures]
    return [found for held in figures.values() for found in _lists(held)]


def as_sections(claim: Claim, finding: Finding) -> str:
    """The claim, what was done, the table, the verdict and its limits, as Markdown."""
    table = ["| " + " | ".join(finding.heads) + " |", "|" + "---|" * len(finding.heads)]
    table += ["| " + " | ".join(row) + " |" for row in finding.rows]
    seeds = f" Seeds: {seeds_of(finding)}." if finding.seeds else ""
    parts = [
        f"**Claim.** {claim.paper}",
        f"**Here.** {claim.here}{seeds}",
        "\n".join(table) if finding.rows else "",
        f"**{finding.verdict[0].upper()}{finding.verdict[1:]}.** {finding.seen}",
        f"**What this cannot show.** {claim.limits}",
    ]
    return "\n\n".join(part for part in parts if part)


def page(claim: Claim, finding: Finding, facts: dict[str, Any]) -> str:
    """The claim and its rerun as a page of its own."""
    return f"# {claim.title}\n\n{as_sections(claim, finding)}\n\n`{facts['command']}`, {facts['machine']}."


def nothing_yet() -> Finding:
    """The finding of a claim that has no records."""
    return Finding((), [], OPEN, "Run its command.", 0)


def parsed(claim: Claim, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line of a claim."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.claims.{claim.name}", description=f"{claim.title}: {claim.here}"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of `python -m benchmarks.mixers`")
    parser.add_argument("--texts", type=Path, help="folder of text files, where the claim needs text")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only-records", action="store_true", help="train nothing, show what there is")
    parser.add_argument("--save", action="store_true", help="write a dated page to benchmarks/results/")
    options = parser.parse_args(arguments)
    if not options.work.is_dir() and (options.only_records or options.work.exists()):
        parser.error(f"--work {options.work} is no folder; expected that of python -m benchmarks.mixers")
    if options.texts is not None:
        ROW_TASKS["text"] = text_rows(options.texts)
    return options


def run(claim: Claim, find: Callable[[argparse.Namespace], Finding]) -> None:
    """Train or measure what is missing, print the page; with --save, write it."""
    options = parsed(claim)
    torch.set_num_threads(1)
    finding = find(options)
    facts = about(f"claims.{claim.name}")
    texts = " --texts FOLDER" if options.texts else ""
    facts["command"] = f"python -m benchmarks.claims.{claim.name} --work DIR{texts} --seeds {options.seeds}"
    text = page(claim, finding, facts)
    print(text)
    if options.save:
        save(f"claims-{claim.name}", facts | {"claim": asdict(claim), "finding": asdict(finding)}, text)
