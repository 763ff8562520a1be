"""Claim: the delta rule replaces what a key held, a sum does not.

python -m benchmarks.claims.overwrite --work DIR [--seeds 3] [--save]
"""

import argparse

from benchmarks.claims.frame import HOLDS, Claim, Finding, all_of, ordered, run
from benchmarks.claims.trained import cell, models, values
from benchmarks.mixers_accuracy import PAPER

CLAIM = Claim(
    "overwrite",
    "The delta rule replaces what a key held",
    "A write of the delta rule removes the value that its key held before, where linear attention adds to it "
    "(arXiv 2406.06484, section 2; seen there in language models and recall at 340M and 1.3B parameters, not alone).",
    "One layer of width 64, 60,000 parameters, behind a convolution over four tokens where the mixer has none of its "
    "own: 28 writes to 4 keys, each written twice or more, then the last value of each is asked for; 400 steps of 16 "
    "rows, the learning rate of recall. Share right; chance is 0.03, and a mixer that recalls any of a key's values is "
    "right in about one of seven.",
    "One layer, small states, few steps. Two layers can work around the sum.",
)
SUMS = ("linear_attention", "gated_linear_attention", "mamba2")


def find(options: argparse.Namespace) -> Finding:
    """The delta rule, with and without decay, against mixers that add."""
    right = {name: values(models(options, "overwrite", name)) for name in PAPER}
    verdicts = [
        ordered(right[rule], right[name]) for rule in ("delta_net", "gated_delta_net") for name in SUMS
    ]
    kept = sum(verdict == HOLDS for verdict in verdicts)
    seen = (
        f"In {kept} of {len(verdicts)} comparisons of a delta rule with a sum every seed of the delta rule is above. "
        f"Attention, which must find the last of several equal keys in one layer, is at {cell(right['attention'])}."
    )
    rows = [[f"`{name}`", cell(numbers)] for name, numbers in right.items()]
    return Finding(("mixer", "last value right"), rows, all_of(verdicts), seen, options.seeds, dict(right))


if __name__ == "__main__":
    run(CLAIM, find)
