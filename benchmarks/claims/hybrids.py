"""Claim: a DeltaNet with some attention recalls better than a pure one.

python -m benchmarks.claims.hybrids --work DIR --texts FOLDER [--seeds 3] [--save]
"""

import argparse
import math

from benchmarks.claims.frame import Claim, Finding, all_of, ordered, run
from benchmarks.claims.trained import TWO_LAYERS, cell, models, values

CLAIM = Claim(
    "hybrids",
    "Hybrids recall better than pure stacks",
    "At 340M parameters DeltaNet scores 26.4, 28.9 and 12.8 on SWDE, SQuAD and FDA, with sliding windows in every "
    "other layer 39.3, 32.5 and 18.8, with two layers of full attention 42.9, 32.1 and 23.1 (arXiv 2406.06484, table "
    "2; 15 billion tokens).",
    "Stacks of two layers of width 64 (D DeltaNet, S a window of half the row, A full attention) on MQAR of 64 tokens "
    "and 4 pairs, and on bytes of text (held-out files); equal parameters, the budgets of the mixers' table, without "
    "the table's convolution in front.",
    "Extraction from real pages is not MQAR; two layers leave one of each kind, and on MQAR the pure stack leaves "
    "little to gain.",
)
STACKS = {"DD": "delta_net", "DS": "DS", "DA": "DA", "AD": "AD", "AA": "attention"}


def find(options: argparse.Namespace) -> Finding:
    """Every stack on recall and on text, the hybrids against DD. Raises: SystemExit without --texts."""
    if options.texts is None:
        raise SystemExit("This claim needs --texts FOLDER, a folder of text files.")
    recall = {stack: values(models(options, "mqar", mixer, **TWO_LAYERS)) for stack, mixer in STACKS.items()}
    bits = {
        stack: [nats / math.log(2) for nats in values(models(options, "text", mixer), of="loss")]
        for stack, mixer in STACKS.items()
    }
    verdicts = {f"{one} over DD on recall": ordered(recall[one], recall["DD"]) for one in ("DS", "DA", "AD")}
    verdicts |= {
        f"{one} over DD on text": ordered([-x for x in bits[one]], [-x for x in bits["DD"]])
        for one in ("DS", "DA", "AD")
    }
    seen = "; ".join(f"{what}: {verdict}" for what, verdict in verdicts.items())
    rows = [[stack, cell(recall[stack]), cell(bits[stack], 3)] for stack in STACKS]
    return Finding(
        ("stack", "MQAR, share right", "bits per byte of text"),
        rows,
        all_of(list(verdicts.values())),
        f"{seen}.",
        options.seeds,
        {"recall": recall, "bits": bits},
    )


if __name__ == "__main__":
    run(CLAIM, find)
