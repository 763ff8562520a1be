"""All claims about models on one page, docs/claims.md: what there is in the records, and what there is not.

    python -m benchmarks.claims.together --work DIR --texts FOLDER [--seeds 3] [--only NAME,...] [--train]

Without --train nothing is trained or measured: claims whose records are missing say so.
"""

import argparse
import importlib
from pathlib import Path
from typing import Any

import torch

from benchmarks.claims.frame import OPEN, Claim, Finding, as_sections
from benchmarks.mixers_accuracy import text_rows
from benchmarks.saved import about
from longlode.evaluate.bench import ROW_TASKS

NAMES = (
    "recall",
    "overwrite",
    "parity",
    "hybrids",
    "keys",
    "convolution",
    "languages",
    "chunkwise",
    "passkey_far",
    "repeat",
    "packers",
)
_READ_TEXT = ("keys", "convolution", "hybrids", "languages", "passkey_far", "packers")
PAGE = Path(__file__).parents[2] / "docs" / "claims.md"
_HEAD = """# Claims of papers, rerun here

Each row is a claim of a paper and a command that reruns it on a CPU, at a size that takes minutes: what the paper
claims at what size, what was done here, the figures, and a verdict that is computed from them. "Holds here" asks
every seed of the better side to be above every seed of the other, "in part" only the mean, or some of several
statements; with one seed that says little, and the sections give the number. A small size can fail to show what a
large one shows.

All read and extend the records of `python -m benchmarks.mixers --work DIR` ([every mixer in one table](models.md)): a
run that was stopped goes on, and a model that the table has is not trained again. `python -m
benchmarks.claims.together` writes this page.

How the settings were chosen: each mixer gets the better of the learning rates 0.01 and 0.003, by the loss of rows
that are not reported. Weights begin with a deviation of 1 / sqrt(width). Numbers of steps are what a core does in
some ten seconds; they separate the mixers that learn a task soon from those that learn it late.

Does training on mined text help a model to use far context? That claim, of longlode's own subject, has its own
results: `python -m benchmarks.claims.mining --work FOLDER`, in [experiments](experiments.md).
"""


def found_by(name: str, options: argparse.Namespace) -> tuple[Claim, Finding]:
    """A claim and what its records show."""
    module: Any = importlib.import_module(f"benchmarks.claims.{name}")
    return module.CLAIM, module.find(options)


def command_of(name: str, options: argparse.Namespace, finding: Finding) -> str:
    """The command that reruns a claim."""
    texts = " --texts FOLDER" if name in _READ_TEXT else ""
    seeds = f" --seeds {options.seeds}" if finding.seeds else ""
    return f"python -m benchmarks.claims.{name} --work DIR{texts}{seeds}"


def written(pairs: list[tuple[Claim, Finding, str]], machine: str) -> str:
    """The page: a table of verdicts, then a section for each claim."""
    lines = ["| claim | here | figures | command |", "|---|---|---|---|"]
    sections = []
    for claim, finding, command in pairs:
        lines.append(f"| {claim.title} | {finding.verdict} | {finding.seen} | `{command}` |")
        sections.append(f"## {claim.title}\n\n{as_sections(claim, finding)}")
    foot = f"Measured on {machine}; figures of trainings do not depend on how busy it was."
    return "\n\n".join([_HEAD.rstrip(), "\n".join(lines), *sections, foot]) + "\n"


def main() -> None:
    """Write the page of what there is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default=",".join(NAMES), help="claims to train for")
    parser.add_argument("--train", action="store_true", help="train and measure what is missing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ROW_TASKS["text"] = text_rows(options.texts)
    pairs = []
    for name in NAMES:
        options.only_records = not (options.train and name in options.only.split(","))
        claim, finding = found_by(name, options)
        pairs.append((claim, finding, command_of(name, options, finding)))
        print(
            f"{name}: {finding.verdict}{'' if finding.verdict == OPEN else f'. {finding.seen}'}", flush=True
        )
    facts = about("claims.together")
    PAGE.write_text(written(pairs, facts["machine"]), encoding="utf-8")


if __name__ == "__main__":
    main()
