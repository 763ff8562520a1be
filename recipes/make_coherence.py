"""Make what the coherence score is made of: the table of common words, and the weights of its features.

    python -m recipes.make_coherence --work WORK [--out src/longlode/assets/coherence]

The words are counted over the documents that the starter model was trained on. The weights are fitted to tell coherent
documents from the nine negatives of `benchmarks/labelled.py`, at lengths of 4,096 to 32,768 tokens, all labels, lengths
and domains counting alike; on the training side of the starter's split and on the `dev` side of the left-out documents.
Nothing of the `test` side is read. A document must not be weighed against a background that holds it, so the features
of the training side are taken with words counted over the dev side, and those of the dev side with the table itself.
"""

import argparse
import json
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.labelled import (
    COHERENT,
    HELDOUT_FRACTION,
    TRAINED_ON,
    Cutter,
    Labelled,
    Source,
    build_set,
    build_side,
    data_folder,
    domain_of,
    heldout_sources,
    list_sources,
    side,
)
from longlode.corpus import Document, Tokenizer, in_heldout, read
from longlode.mining.coherence.background import Background, as_background, count_words, write_background
from longlode.mining.coherence.features import LIMITS, QUANTILES, SPANS, Measurements, read_words
from longlode.mining.scorers.coherence import CoherenceScorer
from longlode.models import starter_folder

LENGTHS = (4096, 8192, 16_384, 32_768)
"""At 2,048 tokens the negatives are hardly told apart, and fitting them costs at every other length."""
SEEDS = (1, 2)
"""Stretches and negatives of the training side are drawn this many times."""
TEXT = ["types", "information", "share_rare"]
ORDER = ["order", "close_order", "word_order"]
SEAMS = [
    f"{part}_{label}_{span}"
    for span in SPANS
    for label in LIMITS
    for part in (*(f"{level}_links" for level in QUANTILES), "far")
]
FACTORS = {"order": ORDER + TEXT, "seams": SEAMS + TEXT, "names": ORDER + SEAMS + TEXT}
PENALTY = 3e-4
"""Of the squared weights; judged on dev, 1e-4 to 1e-3 did alike (docs/experiments/score.md)."""
JOIN = 3e-4
"""Of the squared differences of weights at neighbouring lengths; 1e-4 to 1e-3 did alike."""
CLIP = (0.01, 0.99)
ASSETS = Path(__file__).parents[1] / "src" / "longlode" / "assets" / "coherence"

Row = tuple[int, str, str, dict[str, float]]


def main() -> None:
    """Count, measure, fit, write."""
    arguments = parse()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    trained = trained_sources()
    counts, num_windows = count_words(source.text for source in trained)
    write_background(arguments.out / "words.tsv", counts, num_windows)
    table = as_background(counts, num_windows)
    dev = [source for source in heldout_sources(data_folder()) if side(source.id) == "dev"]
    of_dev = as_background(*count_words(source.text for source in dev))
    version = CoherenceScorer.version
    rows = kept(arguments.work / f"dev-{version}.pkl", lambda: [*measured(dev_items(), table)])
    rows += kept(arguments.work / f"train-{version}.pkl", lambda: [*measured(train_items(trained), of_dev)])
    result = fit(rows)
    (arguments.out / "weights.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows):,} documents, loss {result['loss']:.4f} nats; written to {arguments.out}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the features")
    parser.add_argument("-o", "--out", type=Path, default=ASSETS, help="folder of the table and the weights")
    return parser.parse_args()


def trained_sources() -> list[Source]:
    """The documents that the starter was trained on."""
    folder = data_folder()
    documents = [d for d in read([str(folder / name) for name in TRAINED_ON]) if isinstance(d, Document)]
    return [Source(d.id, domain_of(d), d.text) for d in documents if not in_heldout(d.id, HELDOUT_FRACTION)]


def dev_items() -> Iterator[Labelled]:
    """The dev side at every length."""
    for length in LENGTHS:
        yield from build_set(num_tokens=length, split="dev").items


def train_items(sources: list[Source]) -> Iterator[Labelled]:
    """The training side at every length, with the lists of the dev side (no list was trained on)."""
    lists = [source for source in list_sources(data_folder()) if side(source.id) == "dev"]
    tokenizer = Tokenizer.load(starter_folder())
    for length in LENGTHS:
        for seed in SEEDS:
            yield from build_side(sources, lists, Cutter(tokenizer, length), ("train", seed), Counter())


def measured(items: Iterable[Labelled], background: Background) -> Iterator[Row]:
    """Length, label, domain and features of each."""
    for number, item in enumerate(items, 1):
        features = Measurements(item.tokens, read_words(item.text, background)).features()
        yield len(item.tokens), item.label, item.domain, features
        if number % 500 == 0:
            print(f"{number:,} documents measured", flush=True)


def kept(path: Path, make: Any) -> list[Row]:
    """What `make` gave, from an earlier run if it is there; its name holds the version of the features."""
    if not path.exists():
        path.write_bytes(pickle.dumps(make()))
    return list(pickle.loads(path.read_bytes()))


def balance(rows: list[Row]) -> np.ndarray:
    """Weights: coherent documents count as much as all negatives, and in each label lengths and domains alike."""
    keys = [row[:3] for row in rows]
    labels = {label for _, label, _ in keys}
    cells = {key: keys.count(key) for key in set(keys)}
    domains = {(n, label): len({k for k in cells if k[:2] == (n, label)}) for n, label, _ in cells}
    share = {label: 1.0 if label == COHERENT else 1.0 / (len(labels) - 1) for label in labels}
    return np.array([share[label] / domains[n, label] / cells[n, label, domain] for n, label, domain in keys])


def fit(rows: list[Row]) -> dict[str, Any]:
    """Fit scales, and biases and weights at every length, by maximum likelihood with a penalty."""
    names = TEXT + ORDER + SEAMS
    x = np.array([[row[3][name] for name in names] for row in rows])
    low, high = np.quantile(x, CLIP, axis=0)
    x = np.clip(x, low, high)
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-6
    scaled = torch.tensor((x - mean) / std)
    at = torch.tensor([LENGTHS.index(row[0]) for row in rows])
    columns = {factor: [names.index(name) for name in wanted] for factor, wanted in FACTORS.items()}
    weights = {f: torch.zeros(len(LENGTHS), 1 + len(c), dtype=torch.float64) for f, c in columns.items()}
    for matrix in weights.values():
        matrix[:, 0] = 1.0  # the bias
        matrix[:, 1] = 1.0  # factors that start alike would stay alike
    parameters = [matrix.requires_grad_() for matrix in weights.values()]
    coherent = torch.tensor([float(row[1] == COHERENT) for row in rows], dtype=torch.float64)
    counts = torch.tensor(balance(rows))
    optimizer = torch.optim.LBFGS(parameters, max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        log_p = torch.zeros(len(rows), dtype=torch.float64)
        for f, c in columns.items():
            own = weights[f][at]
            log_p = log_p + torch.nn.functional.logsigmoid(own[:, 0] + (own[:, 1:] * scaled[:, c]).sum(1))
        log_odds = log_p - torch.log(-torch.expm1(torch.clamp(log_p, max=-1e-12)))
        each = torch.nn.functional.binary_cross_entropy_with_logits(log_odds, coherent, reduction="none")
        size = sum((w[:, 1:] ** 2).sum() for w in weights.values())
        bends = sum((w.diff(dim=0) ** 2).sum() for w in weights.values())
        total = (counts * each).sum() / counts.sum() + (PENALTY * size + JOIN * bends) / len(LENGTHS)
        total.backward()
        return total

    optimizer.step(loss)
    scales = {name: _short(low[i], high[i], mean[i], std[i]) for i, name in enumerate(names)}
    return {
        "loss": loss().item(),
        "lengths": list(LENGTHS),
        "scales": scales,
        "biases": {factor: _short(*matrix[:, 0].tolist()) for factor, matrix in weights.items()},
        "weights": {
            factor: {
                name: _short(*column.tolist())
                for name, column in zip(FACTORS[factor], weights[factor][:, 1:].T, strict=True)
            }
            for factor in FACTORS
        },
    }


def _short(*values: float) -> list[float]:
    """Six digits of each, which is more than the fit knows."""
    return [float(f"{value:.6g}") for value in values]


if __name__ == "__main__":
    main()
