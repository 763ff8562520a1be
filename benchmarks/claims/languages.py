"""Claim: which mixers learn a language from the text before.

python -m benchmarks.claims.languages --work DIR --texts FOLDER [--seeds 3] [--save]
"""

import argparse

from benchmarks.claims.frame import Claim, Finding, all_of, ordered, run
from benchmarks.claims.trained import cell, models, values
from benchmarks.mixers_accuracy import PAPER

CLAIM = Claim(
    "languages",
    "In-context languages: attention, then DeltaNet, then GLA; n-gram heads help",
    "RegBench, legal next symbols after 2,500 training languages: Transformer 93 %, Mamba 84, DeltaNet 81, GLA 52 "
    "(arXiv 2406.06484, figure 3); heads that copy what followed the same n-gram help every model (arXiv 2401.12973).",
    "Two layers of width 64, 600 steps of 8 rows of 256 symbols, a new language in every row: 4,800 languages, each "
    "seen once. Share of legal symbols in the second half of a row; a random legal alphabet symbol is right in 0.11.",
    "The published models see each language many times and are several times as large.",
)
TASK = "in_context_language"


def find(options: argparse.Namespace) -> Finding:
    """The paper's mixers, and a layer of n-gram heads before DeltaNet."""
    right = {name: values(models(options, TASK, name)) for name in (*PAPER, "ngram_head")}
    claims = {
        "attention over DeltaNet": ordered(right["attention"], right["delta_net"]),
        "DeltaNet over GLA": ordered(right["delta_net"], right["gated_linear_attention"]),
        "n-gram heads over attention": ordered(right["ngram_head"], right["attention"]),
    }
    seen = "; ".join(f"{what}: {verdict}" for what, verdict in claims.items())
    rows = [[f"`{name}`", cell(numbers)] for name, numbers in right.items()]
    return Finding(
        ("mixer", "legal symbols"), rows, all_of(list(claims.values())), f"{seen}.", options.seeds, right
    )


if __name__ == "__main__":
    run(CLAIM, find)
