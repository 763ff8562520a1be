"""Do order contrast and coherence score rise with what was planted, where they claim to see it, not with repetition?

    python -m benchmarks.planted [--documents 8] [--words 16000] [--save]

Generated documents (`longlode.synthetic.planted`) with known dependencies: names that are defined and used again, at a
chosen distance and number; every other name has its occurrences at random places. A word is a token, so distances are
exact and no model is needed. Prints three tables (mean and standard deviation over documents, with the mean of
`score_se`), then what docs/scorers.md says of them, checked; the exit status is 1 if one is not so. Score is the order
contrast in nats a token; the coherence score (log-odds, of which it is a part), `overlap` and `gzip` stand beside it.
"""

import argparse
import itertools
import random
import sys

import numpy as np

from benchmarks.saved import about, save
from longlode.mining.baselines import far_overlap, gzip_ratio
from longlode.mining.coherence.background import packaged_background
from longlode.mining.coherence.features import Measurements, packaged_weights, read_words, spans
from longlode.mining.scorers.order import order_score
from longlode.mining.scorers.overlap import MIN_DISTANCE, NUM_TOKENS, RARE_SHARE
from longlode.synthetic.planted import planted_document

DISTANCES = (64, 256, 512, 1024, 2048, 4096)
NUMBERS = (0, 16, 32, 64)
USES = (1, 2, 4, 8)
SHARES = (0.0, 0.25, 0.5, 0.75)
SEGMENT = 128


def main() -> None:
    """Measure, print, check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=8, help="documents for each cell")
    parser.add_argument("--words", type=int, default=16_000, help="words of each document")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="write a dated table to benchmarks/results/")
    arguments = parser.parse_args()
    near, span = spans(arguments.words)
    print(f"{arguments.words:,} words; near context {near}, window {span} words; nats a token")
    rows = measure(arguments.documents, arguments.words, arguments.seed)
    for name in ("distance", "uses", "repetition"):
        show(name, [row for row in rows if row["table"] == name])
    verdicts = check(rows, near, span)
    for claim, holds in verdicts.items():
        print(f"{'yes' if holds else 'NO '}  {claim}")
    if arguments.save:
        save("planted", about("planted") | {"verdicts": verdicts, "rows": rows})
    sys.exit(0 if all(verdicts.values()) else 1)


def measure(num_documents: int, num_words: int, seed: int) -> list[dict]:
    """One row a cell: table, number planted, distance, uses, repeated share, and the scores over documents."""
    cells = [("distance", {"num_planted": n, "distance": d}) for d in DISTANCES for n in NUMBERS]
    cells += [("uses", {"num_planted": n, "num_uses": u}) for u in USES for n in (0, 64)]
    cells += [("repetition", {"num_planted": n, "repeated_share": s}) for s in SHARES for n in (0, 64)]
    rows = []
    for table, options in cells:
        options = {"distance": 512, "num_uses": 1, "repeated_share": 0.0} | options
        texts = [
            planted_document(random.Random(f"{seed} {number}"), num_words=num_words, **options)
            for number in range(num_documents)
        ]
        rows.append({"table": table, **options, **summary(texts)})
    return rows


def summary(texts: list[str]) -> dict:
    """Mean order contrast, its spread over the documents, the mean of its own standard error; peers."""
    tokens = [word_tokens(text) for text in texts]
    scores, errors = zip(*(order_score(each) for each in tokens), strict=True)
    segments = [each[: len(each) // SEGMENT * SEGMENT].reshape(-1, SEGMENT) for each in tokens]
    far = [far_overlap(s, MIN_DISTANCE, NUM_TOKENS, max(2.0, RARE_SHARE * len(s))) for s in segments]
    return {
        "score": float(np.mean(scores)),
        "spread": float(np.std(scores, ddof=1)),
        "score_se": float(np.mean(errors)),
        "coherence": float(np.mean([coherence_of(*one) for one in zip(tokens, texts, strict=True)])),
        "overlap": float(np.mean(far)),
        "gzip": float(np.mean([1 - (gzip_ratio(text) or 0) for text in texts])),
    }


def coherence_of(tokens: np.ndarray, text: str) -> float:
    """The log-odds, without their error."""
    measured = Measurements(tokens, read_words(text, packaged_background()))
    return packaged_weights().log_odds(measured.features())


def word_tokens(text: str) -> np.ndarray:
    """One number a word, int64 `[n]`."""
    return np.unique(text.split(), return_inverse=True)[1]


def show(name: str, rows: list[dict]) -> None:
    """Print one table."""
    print(
        f"\n{name}\n{'distance':>8} {'planted':>8} {'uses':>5} {'repeated':>8}   score (spread; score_se)"
        f"{'':6}coherence    overlap      gzip"
    )
    for row in rows:
        print(
            f"{row['distance']:8} {row['num_planted']:8} {row['num_uses']:5} {row['repeated_share']:8.2f}   "
            f"{row['score']:+.4f} ({row['spread']:.4f}; {row['score_se']:.4f})   "
            f"{row['coherence']:+10.2f} {row['overlap']:10.4f} {row['gzip']:9.3f}"
        )
    print()


def check(rows: list[dict], near: int, span: int) -> dict[str, bool]:
    """What docs/scorers.md says, claim by claim. Differences count from two standard deviations of one document on."""
    by_distance = {
        d: [row for row in rows if row["table"] == "distance" and row["distance"] == d] for d in DISTANCES
    }
    seen = [d for d in DISTANCES if near < 0.9 * d and 1.1 * d <= near + span]
    unseen = [d for d in DISTANCES if 1.1 * d <= near or 0.9 * d > near + span]
    uses = {(row["num_planted"], row["num_uses"]): row for row in rows if row["table"] == "uses"}
    repeated = {
        (row["num_planted"], row["repeated_share"]): row for row in rows if row["table"] == "repetition"
    }
    plain, noise = repeated[0, 0.0], 2 * max(row["spread"] for row in rows)
    return {
        f"0 where nothing is planted ({plain['score']:+.4f})": abs(plain["score"]) < noise,
        f"rises with the number planted, at distances {seen}": all(
            a["score"] < b["score"] for d in seen for a, b in itertools.pairwise(by_distance[d])
        ),
        f"by more than noise ({noise:.4f}) from none to all": all(
            by_distance[d][-1]["score"] - by_distance[d][0]["score"] > noise for d in seen
        ),
        f"does not rise at distances {unseen}, in the near context or beyond the window": all(
            by_distance[d][-1]["score"] - by_distance[d][0]["score"] < noise for d in unseen
        ),
        "so does the coherence score": all(
            a["coherence"] < b["coherence"] for d in seen for a, b in itertools.pairwise(by_distance[d])
        ),
        "rises with the number of callbacks": all(
            uses[64, a]["score"] - uses[0, a]["score"] < uses[64, b]["score"] - uses[0, b]["score"]
            for a, b in itertools.pairwise(USES)
        ),
        "does not rise with repetition, planted or not": all(
            repeated[n, s]["score"] - repeated[n, 0.0]["score"] < noise for n in (0, 64) for s in SHARES
        ),
        "and gzip does": repeated[0, 0.75]["gzip"] > repeated[0, 0.0]["gzip"] + 0.1,
    }


if __name__ == "__main__":
    main()
