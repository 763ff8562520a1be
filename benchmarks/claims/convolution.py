"""Claim: DeltaNet needs its short convolutions.

python -m benchmarks.claims.convolution --work DIR --texts FOLDER [--seeds 3] [--save]
"""

import argparse

from benchmarks.claims.frame import Claim, Finding, run
from benchmarks.claims.parts import compare
from benchmarks.claims.variants import WITHOUT_CONVOLUTION

CLAIM = Claim(
    "convolution",
    "DeltaNet with and without short convolutions",
    "At 340M parameters, Wiki perplexity 28.24 with and 29.08 without convolutions of 4 tokens, retrieval 22.7 and "
    "18.6; in-context languages 81 and 79 % after 2,500 examples (arXiv 2406.06484, ablation and figure 3).",
    "Two layers of width 64 on MQAR of 64 tokens and 4 pairs and on bytes of text (held-out files), the budgets of the "
    "mixers' table.",
    "200 steps of text show the first descent of the loss. In MQAR a value stands right after its key, which two "
    "layers with a convolution learn at once and without one only late.",
)


def find(options: argparse.Namespace) -> Finding:
    """With and without."""
    return compare(options, {"with": "delta_net", "without": WITHOUT_CONVOLUTION})


if __name__ == "__main__":
    run(CLAIM, find)
