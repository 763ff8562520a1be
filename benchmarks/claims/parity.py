"""Claim: parity needs negative eigenvalues, beta in (0, 2).

python -m benchmarks.claims.parity --work DIR [--seeds 3] [--save]
"""

import argparse

from benchmarks.claims.frame import Claim, Finding, all_of, ordered, run
from benchmarks.claims.trained import cell, models, values

CLAIM = Claim(
    "parity",
    "Parity needs beta in (0, 2)",
    "With beta in (0, 1) DeltaNet does not learn the parity of bits, with beta in (0, 2) it does, far beyond the "
    "length of training: scaled accuracy 0.017 and 1.000 at 40 to 256 bits after training on 3 to 40, best of 3 seeds; "
    "attention 0.022 (arXiv 2411.12537, table 1; 2 layers, batches of 1,024).",
    "2 layers of width 64 with 2 heads, 400 steps of 32 rows of 3 to 40 bits, every prefix asked for, the better of "
    "two learning rates by other rows. Share right; chance is 0.50.",
    "A thirtieth of the rows of the paper, and no choice of the best seed.",
)
LENGTHS = (40, 128, 256)
ARMS = {
    "beta in (0, 2)": ("delta_net", {"allow_neg_eigval": True}),
    "beta in (0, 1)": ("delta_net", {"allow_neg_eigval": False}),
    "`attention`": ("attention", {"allow_neg_eigval": False}),
}


def find(options: argparse.Namespace) -> Finding:
    """Both ranges of beta, and attention, at each length."""
    found = {arm: models(options, "parity", mixer, **changes) for arm, (mixer, changes) in ARMS.items()}
    right = {(arm, length): values(rows, length) for arm, rows in found.items() for length in LENGTHS}
    wide, narrow = list(ARMS)[:2]
    verdicts = {length: ordered(right[wide, length], right[narrow, length]) for length in LENGTHS}
    seen = "; ".join(
        f"at {length} bits {cell(right[wide, length])} against {cell(right[narrow, length])}"
        for length in LENGTHS
    )
    rows = [[arm, *(cell(right[arm, length]) for length in LENGTHS)] for arm in ARMS]
    heads = ("", *(f"{length} bits" for length in LENGTHS))
    figures = {f"{arm} {length}": numbers for (arm, length), numbers in right.items()}
    seen = f"{seen[0].upper()}{seen[1:]}. Lengths beyond 40 are not in the training."
    return Finding(heads, rows, all_of(list(verdicts.values())), seen, options.seeds, figures)


if __name__ == "__main__":
    run(CLAIM, find)
