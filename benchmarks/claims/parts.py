"""Two variants of DeltaNet compared on recall and on text; the first is the published default."""

import argparse
import math

from benchmarks.claims.frame import Finding, all_of, ordered
from benchmarks.claims.trained import TWO_LAYERS, cell, models, values


def compare(options: argparse.Namespace, arms: dict[str, str]) -> Finding:
    """Train both arms (label -> mixer) on MQAR and text: is the first better at both?

    Raises: SystemExit without --texts.
    """
    if options.texts is None:
        raise SystemExit("This claim needs --texts FOLDER, a folder of text files.")
    recall = {arm: values(models(options, "mqar", mixer, **TWO_LAYERS)) for arm, mixer in arms.items()}
    bits = {
        arm: [nats / math.log(2) for nats in values(models(options, "text", mixer), of="loss")]
        for arm, mixer in arms.items()
    }
    first, second = arms
    on_recall = ordered(recall[first], recall[second])
    on_text = ordered([-one for one in bits[first]], [-one for one in bits[second]])
    rows = [[arm, cell(recall[arm]), cell(bits[arm], 3)] for arm in arms]
    return Finding(
        ("", "MQAR, share right", "bits per byte of text"),
        rows,
        all_of([on_recall, on_text]),
        f"On recall: {on_recall}. On text: {on_text}.",
        options.seeds,
        {"recall": recall, "bits": bits},
    )
