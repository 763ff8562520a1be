"""Which score tells coherent documents from documents that only look long?

    python -m benchmarks.mining_quality [--scorer starter] [--estimators default,paper,...] [--extra] [--save]

Scores the labelled set (`benchmarks/labelled.py`) with every estimator and prints, for each negative, the AUC (share of
(coherent, negative) pairs that are ranked rightly, ties half) with a 95 % bootstrap interval over documents, the
correlation of the score with length, and the tokens that the model read for each token of the documents. Without
`--save` nothing is written; with it a dated table goes to benchmarks/results/.
"""

import argparse
import datetime
import json
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.labelled import COHERENT, Labelled, labelled_set
from longlode.core.records import versions
from longlode.corpus import Document, write_documents
from longlode.mining import Estimator, PairPlan, ScoreSettings, SegmentedDocument, make_estimator, score

RESULTS = Path(__file__).with_name("results")
ESTIMATORS = "default,paper,release,strength,gzip"
SAME_PAIRS = ("paper", "release", "strength")
NUM_RESAMPLES = 1000


def main() -> None:
    """Score, tabulate, print, and save if asked to."""
    arguments = parse()
    documents = labelled_set(num_chars=arguments.chars, seed=arguments.seed, extra=arguments.extra)
    labels = np.array([item.label for item in documents])
    domains = np.array([item.domain for item in documents])
    print(
        f"{len(documents)} documents: " + ", ".join(f"{sum(labels == x)} {x}" for x in dict.fromkeys(labels))
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "labelled.jsonl"
        write_documents(source, ({"id": d.id, "source": d.domain, "text": d.text} for d in documents))
        lengths = np.array([len(item.text.encode()) for item in documents])
        for name in arguments.estimators.split(","):
            scores, cost = run(name, source, Path(folder), arguments)
            row = {"estimator": name} | tabulate(scores, lengths, labels, arguments.seed) | cost
            row["by_domain"] = by_domain(scores, labels, domains)
            rows.append(row)
            show(row)
    if arguments.save:
        save(rows, documents, arguments)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scorer", default="starter", help="starter, a folder, or a hub id")
    parser.add_argument("--estimators", default=ESTIMATORS, help="names, with commas between")
    parser.add_argument(
        "--dtype", default="float32", help="of the scorer; bfloat16 is faster where it is native"
    )
    parser.add_argument("--chars", type=int, default=60_000, help="characters of each document")
    parser.add_argument("--pairs", type=int, default=500, help="pairs of each document")
    parser.add_argument("--extra", action="store_true", help="also the harder negatives")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None, help="threads of torch")
    parser.add_argument("--save", action="store_true", help="write a dated table to benchmarks/results/")
    return parser.parse_args()


def run(name: str, source: Path, folder: Path, arguments: argparse.Namespace) -> tuple[np.ndarray, dict]:
    """Score the set with one estimator; returns scores in the set's order (nan where none) and what it cost.

    paper, release and strength read the same pairs, so they are read once, by paper, and the others finish from what it
    kept; their cost is that of the reading.
    """
    reader = "paper" if name in SAME_PAIRS else name
    out = folder / reader
    if not out.exists():
        read_set(reader, source, out, arguments)
    record = json.loads((out / "record.json").read_text())
    cost = {"tokens_read": record["cost"]["tokens_read_per_token"], "seconds": record["seconds"]}
    rows = pq.read_table(sorted((out / "parts").glob("*.parquet"))).sort_by("row").to_pylist()
    if name == reader:
        return np.array([np.nan if row["score"] is None else row["score"] for row in rows]), cost
    estimator = make_estimator(name, pairs=arguments.pairs)
    return np.array([finish_from_pairs(estimator, row) for row in rows]), cost


def read_set(name: str, source: Path, out: Path, arguments: argparse.Namespace) -> None:
    """Score the set into `out`, keeping the pairs."""
    from longlode.models import starter_folder
    from longlode.models.scorer import ScorerSpec

    source_name = str(starter_folder()) if arguments.scorer == "starter" else arguments.scorer
    spec = ScorerSpec(source_name, dtype=arguments.dtype)
    scorer = spec(arguments.threads)
    score(
        source,
        out,
        estimator=make_estimator(name, pairs=arguments.pairs),
        make_scorer=lambda: scorer,
        scorer_fingerprint=scorer.fingerprint,
        settings=ScoreSettings(seed=arguments.seed, keep_pairs=True),
    )


def finish_from_pairs(estimator: Estimator, row: dict) -> float:
    """An estimator's score from the mean nats of the pairs that a row kept; nan where there is none."""
    if row["status"] != "ok":
        return np.nan
    columns = {
        name: np.array([pair[name] for pair in row["pairs"]]) for name in ("i", "j", "nll_alone", "nll_given")
    }
    num_segments = row["num_segments"]
    alone = np.zeros((num_segments, 1))
    alone[columns["i"], 0] = columns["nll_alone"]
    doc = SegmentedDocument(
        document=Document(row["id"], "", row["source"], row["file"], row["row"]),
        tokens=np.zeros((num_segments, 2), dtype=np.int64),
        positions=np.arange(num_segments),
        num_total_segments=num_segments,
        all_tokens=np.zeros(0, dtype=np.int32),
        foreign=np.zeros((0, 2), dtype=np.int64),
        repetition=row["repetition"],
        gzip_ratio=row["gzip_ratio"],
    )
    plan = PairPlan(columns["i"].astype(np.int32), columns["j"].astype(np.int32))
    found = estimator.finish(doc, plan, alone, columns["nll_given"][:, None]).score
    return np.nan if found is None else found


def tabulate(scores: np.ndarray, lengths: np.ndarray, labels: np.ndarray, seed: int) -> dict:
    """AUC and interval of each negative, and the score's correlation with length among coherent documents."""
    positive = scores[labels == COHERENT]
    negatives = [x for x in dict.fromkeys(labels) if x != COHERENT]
    rng = np.random.default_rng(seed)
    return {
        "auc": {x: interval(positive, scores[labels == x], rng) for x in negatives},
        "unscored": int(np.isnan(scores).sum()),
        "length_correlation": spearman(positive, lengths[labels == COHERENT]),
    }


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Share of pairs in which the positive scores higher; ties, and documents without a score, count half."""
    difference = positive[:, None] - negative[None]
    return float((difference > 0).mean() + 0.5 * ((difference == 0) | np.isnan(difference)).mean())


def interval(
    positive: np.ndarray, negative: np.ndarray, rng: np.random.Generator
) -> tuple[float, float, float]:
    """AUC, and its 2.5 and 97.5 percentiles over resampled documents."""
    draws = [
        auc(rng.choice(positive, len(positive)), rng.choice(negative, len(negative)))
        for _ in range(NUM_RESAMPLES)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return auc(positive, negative), float(low), float(high)


def by_domain(scores: np.ndarray, labels: np.ndarray, domains: np.ndarray) -> dict[str, float]:
    """AUC of coherent against spliced documents within one domain."""
    found = {}
    for domain in dict.fromkeys(domains):
        here = [scores[(labels == label) & (domains == domain)] for label in (COHERENT, "spliced")]
        if all(map(len, here)):
            found[str(domain)] = auc(*here)
    return found


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Rank correlation; None when one of them does not vary."""
    ranks = [np.unique(x, return_inverse=True)[1].astype(float) for x in (a, b)]
    if min(x.std() for x in ranks) == 0:
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def show(row: dict) -> None:
    """Print one estimator's line."""
    cells = "  ".join(f"{x} {m:.3f} [{low:.3f}, {high:.3f}]" for x, (m, low, high) in row["auc"].items())
    print(
        f"{row['estimator']:9} {cells}  reads {row['tokens_read']:.2f}x  {row['seconds']:.0f} s", flush=True
    )


def save(rows: list[dict], documents: list[Labelled], arguments: argparse.Namespace) -> None:
    """Write the table with machine, versions and command."""
    RESULTS.mkdir(exist_ok=True)
    path = (
        RESULTS
        / f"{datetime.date.today().isoformat()}-mining-quality{'-extra' if arguments.extra else ''}.json"
    )
    result = {
        "command": "python -m benchmarks.mining_quality " + " ".join(sys.argv[1:]),
        "machine": platform.processor() or platform.machine(),
        "versions": versions(),
        "num_documents": len(documents),
        "rows": rows,
    }
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"saved {path}")


if __name__ == "__main__":
    main()
