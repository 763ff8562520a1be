"""How well does the gate tell one text in its order from 41 families of text that is not?

    python -m benchmarks.gate_quality [--weights FOLDER] [--side dev] [--lengths 4096,16384] [--coherence] [--save]

AUC of each family against all coherent texts of the side; mean and worst over the families, over all texts and within
each language and domain; and whether the log-odds are calibrated: of the texts that it gives a probability, with
negatives weighed to be half, how many are coherent. `--coherence` gives the same texts the coherence score as well.
The packaged weights are fitted on the `fit` side alone.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gate_set import COHERENT, Sample, gate_set
from benchmarks.quality_measures import auc
from benchmarks.saved import about, save
from benchmarks.works import SIDES
from longlode.mining.gate.model import PACKAGED, read_gate
from longlode.synthetic.families import FAMILIES

BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, tabulate, print, save if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, default=PACKAGED, help="folder of gate.json and gate.npz")
    parser.add_argument("--side", choices=SIDES[1:], default="dev")
    parser.add_argument("--heldout", action="store_true", help="read the heldout side; recorded")
    parser.add_argument("--lengths", default="4096,16384")
    parser.add_argument("--coherence", action="store_true", help="score with the coherence score as well")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args(arguments)
    gate = read_gate(options.weights)
    scorers: dict[str, Callable[[str], float]] = {"gate": lambda text: _log_odds(gate.judge(text))}
    if options.coherence:
        scorers["coherence"] = coherence_score()
    result: dict[str, Any] = {}
    for length in map(int, options.lengths.split(",")):
        samples = list(gate_set(options.side, length, seed=0, per_family=3, heldout=options.heldout))
        for name, scorer in scorers.items():
            scores = np.array([scorer(sample.text) for sample in samples])
            result[f"{name} {length}"] = table = tabulate(samples, scores)
            show(f"{name}, {length} tokens, {len(samples)} texts", table)
    if options.save:
        save(f"gate-quality-{options.side}", about("gate_quality") | result)


def _log_odds(verdict: Any) -> float:
    return float("nan") if verdict is None else verdict.log_odds


def coherence_score() -> Callable[[str], float]:
    """The coherence score of a text, with the starter's tokenizer."""
    from longlode.corpus import Tokenizer
    from longlode.mining.coherence.background import packaged_background
    from longlode.mining.coherence.features import Measurements, packaged_weights, read_words
    from longlode.models import starter_folder

    tokenizer = Tokenizer.load(starter_folder())

    def score(text: str) -> float:
        tokens = np.array(tokenizer.encode([text])[0])
        return packaged_weights().log_odds(
            Measurements(tokens, read_words(text, packaged_background())).features()
        )

    return score


def tabulate(samples: Sequence[Sample], scores: np.ndarray) -> dict[str, Any]:
    """AUC by family, by group of texts, and calibration."""
    labels = np.array([sample.label for sample in samples])
    families = [label for makers in FAMILIES.values() for label in makers if (labels == label).any()]
    found: dict[str, Any] = {"families": _aucs(labels, scores, families)}
    for part in ("language", "domain"):
        kinds = np.array([getattr(sample, part) for sample in samples])
        found[part] = {
            str(kind): _aucs(labels[kinds == kind], scores[kinds == kind], families)
            for kind in sorted(set(kinds))
        }
    coherent = labels == COHERENT
    weight = np.where(coherent, 0.5 / coherent.sum(), 0.5 / max(1, (~coherent).sum()))
    chance = 1 / (1 + np.exp(-np.nan_to_num(scores)))
    found["reliability"] = [
        [low, float(weight[rows].sum()), float(weight[rows & coherent].sum() / weight[rows].sum())]
        for low, high in itertools.pairwise(BINS)
        if (rows := (chance >= low) & (chance < high + (high == 1.0))).any()
    ]
    return found


def _aucs(labels: np.ndarray, scores: np.ndarray, families: Sequence[str]) -> dict[str, float]:
    positive = scores[labels == COHERENT]
    return {x: auc(positive, scores[labels == x]) for x in families if (labels == x).any() and len(positive)}


def show(title: str, table: dict[str, Any]) -> None:
    """Print one table."""
    values = table["families"]
    print(f"{title}: mean {np.mean(list(values.values())):.3f}, worst {min(values.values()):.3f}")
    low = sorted((value, name) for name, value in values.items() if value < 0.95)
    print("  below .95: " + ", ".join(f"{name} {value:.2f}" for value, name in low))
    for part in ("language", "domain"):
        rows = {kind: list(found.values()) for kind, found in table[part].items() if found}
        print(f"  {part}: " + ", ".join(f"{k} {np.mean(v):.3f} ({min(v):.2f})" for k, v in rows.items()))
    rows = [
        f"from {low:.1f}: {share:.2f} of texts, {right:.2f}" for low, share, right in table["reliability"]
    ]
    print("  coherent by probability " + "; ".join(rows), flush=True)


if __name__ == "__main__":
    main()
