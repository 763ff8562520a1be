"""Score a list of strings: a real document against the same document with its paragraphs shuffled.

The score is the log-odds, in nats, that a text is one document in its own order. No model is read.
"""

import argparse
import random
from pathlib import Path

import longlode

document = Path(argparse.__file__).read_text(encoding="utf-8")
paragraphs = document.split("\n\n")
random.Random(0).shuffle(paragraphs)

table = longlode.score_texts([document, "\n\n".join(paragraphs)])
for name, row in zip(("as written", "shuffled"), table.to_pylist(), strict=True):
    print(
        f"{name:12} {row['num_tokens']:7,} tokens   score {row['score']:6.2f}   {row['status']} {row['reason']}"
    )
