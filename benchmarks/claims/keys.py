"""Claim: keys of Euclidean norm 1 of SiLU beat keys of sum 1 of 1 + ELU.

python -m benchmarks.claims.keys --work DIR --texts FOLDER [--seeds 3] [--save]
"""

import argparse

from benchmarks.claims.frame import Claim, Finding, run
from benchmarks.claims.parts import compare
from benchmarks.claims.variants import SUM_OF_ELU

CLAIM = Claim(
    "keys",
    "Keys: L2 norm and SiLU against L1 norm and 1 + ELU",
    "At 340M parameters, Wiki perplexity 28.24 with SiLU and the L2 norm, 31.12 with 1 + ELU and the L1 norm; "
    "retrieval 22.7 and 11.5 (arXiv 2406.06484, ablation; 15 billion tokens).",
    "Two layers of width 64 on MQAR of 64 tokens and 4 pairs and on bytes of text (held-out files), the budgets of the "
    "mixers' table; only the feature map of queries and keys differs.",
    "200 steps of text show the first descent of the loss, not where training ends.",
)


def find(options: argparse.Namespace) -> Finding:
    """Both feature maps."""
    return compare(options, {"L2 and SiLU": "delta_net", "L1 and 1 + ELU": SUM_OF_ELU})


if __name__ == "__main__":
    run(CLAIM, find)
