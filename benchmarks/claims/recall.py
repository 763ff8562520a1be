"""Claim: DeltaNet recalls (MQAR) better than other models with a state of fixed size.

python -m benchmarks.claims.recall --work DIR [--seeds 3] [--save]
"""

import argparse

from benchmarks.claims.frame import Claim, Finding, all_of, ordered, run
from benchmarks.claims.trained import cell, models, values
from benchmarks.mixers_accuracy import PAPER

CLAIM = Claim(
    "recall",
    "DeltaNet recalls better than other models with a state of fixed size",
    "DeltaNet solves Zoology's MQAR at every width, at 512 tokens and 64 pairs, where GLA and Mamba fail at small "
    "widths (arXiv 2406.06484, figure 2; Zoology, arXiv 2312.04927: vocabulary 8,192, 100,000 rows, 64 epochs, best of "
    "4 learning rates, 2 layers of width 64 to 512).",
    "MQAR of (64, 4), (128, 8) and (256, 16) (tokens, pairs), twice as many symbols as tokens, one layer of width 64 "
    "with 2 heads, behind a convolution over four tokens where the mixer has none of its own, an MLP that makes the "
    "parameters equal, 500 steps of 16 rows; of the learning rates 0.01 and 0.003 the better one by rows that are not "
    "reported. Share of values right.",
    "8,000 rows tell how fast a mixer learns recall, not whether it could: with 45,000 rows (700 steps of 64, rate "
    "0.003, one seed) GLA is at 0.12 and Mamba-2 at 0.20 of (64, 4), and both rise. At these sizes every state has "
    "room for all pairs.",
)
TASKS = ("mqar", "mqar_128", "mqar_256")


def find(options: argparse.Namespace) -> Finding:
    """DeltaNet against each of the paper's mixers, at every size."""
    right = {(name, task): values(models(options, task, name)) for name in PAPER for task in TASKS}
    tasks = [task for task in TASKS if all(right[name, task] for name in PAPER)]
    fixed = [name for name in PAPER if name not in ("delta_net", "attention")]
    verdicts = {
        f"{name}, {task}": ordered(right["delta_net", task], right[name, task])
        for task in tasks
        for name in fixed
    }
    behind = [what for what, verdict in verdicts.items() if verdict != "holds here"]
    seen = (
        f"In {len(verdicts) - len(behind)} of {len(verdicts)} comparisons with mixers of fixed state every seed of "
        f"DeltaNet is above every seed of the other; not against: {'; '.join(behind) or 'none'}."
    )
    rows = [[f"`{name}`", *(cell(right[name, task]) for task in TASKS)] for name in PAPER]
    figures = {f"{name} {task}": numbers for (name, task), numbers in right.items()}
    heads = ("mixer", "(64, 4)", "(128, 8)", "(256, 16)")
    return Finding(heads, rows, all_of(list(verdicts.values())), seen, options.seeds, figures)


if __name__ == "__main__":
    run(CLAIM, find)
