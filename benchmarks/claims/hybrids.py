"""Claim: a DeltaNet with some attention recalls better than a pure one.

python -m benchmarks.claims.hybrids --work DIR [--seeds 3] [--save]
"""

import argparse

from benchmarks.claims.frame import Claim, Finding, all_of, ordered, run
from benchmarks.claims.trained import cell, models, values

CLAIM = Claim(
    "hybrids",
    "Hybrids recall better than pure stacks",
    "At 340M parameters DeltaNet scores 26.4, 28.9 and 12.8 on SWDE, SQuAD and FDA, with sliding windows in every "
    "other layer 39.3, 32.5 and 18.8, with two layers of full attention 42.9, 32.1 and 23.1 (arXiv 2406.06484, table "
    "2; 15 billion tokens).",
    "Stacks of two layers of width 64 (D DeltaNet, S a window of half the row, A full attention) on MQAR of 64 tokens "
    "and 4 pairs and of 128 tokens and 8 pairs, equal parameters and budget, as in the claim `recall`.",
    "Extraction from real pages is not MQAR; two layers leave one of each kind.",
)
STACKS = {"DD": "delta_net", "DS": "DS", "DA": "DA", "AD": "AD", "AA": "attention"}
TASKS = ("mqar", "mqar_128")


def find(options: argparse.Namespace) -> Finding:
    """Every stack on both tasks; the better hybrid against the pure stacks."""
    right = {
        (stack, task): values(models(options, task, mixer))
        for stack, mixer in STACKS.items()
        for task in TASKS
    }
    verdicts = {
        (task, hybrid): ordered(right[hybrid, task], right["DD", task])
        for task in TASKS
        for hybrid in ("DS", "DA")
    }
    seen = "; ".join(f"{hybrid} over DD on {task}: {verdict}" for (task, hybrid), verdict in verdicts.items())
    rows = [[stack, *(cell(right[stack, task]) for task in TASKS)] for stack in STACKS]
    figures = {f"{stack} {task}": numbers for (stack, task), numbers in right.items()}
    heads = ("stack", "(64, 4)", "(128, 8)")
    return Finding(heads, rows, all_of(list(verdicts.values())), f"{seen}.", options.seeds, figures)


if __name__ == "__main__":
    run(CLAIM, find)
