"""Fit the packaged gate: python -m recipes.make_gate [--sides fit] [--out src/longlode/assets/gate]

Texts and negatives are those of `benchmarks/gate_set.py`, of the given sides of the works. The weights of direction
must not know a text that they judge: the works are dealt into FOLDS, and a text of a work is judged by what was learned
on the other folds; what is written was learned on all. The packaged weights are fitted on the `fit` side, so that `dev`
and `heldout` can judge them.
"""

import argparse
import hashlib
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.gate_set import COHERENT, Sample, gate_set, laid_out
from benchmarks.works import SIDES, Work, works_of
from longlode.mining.gate.direction import Directions, learn_directions
from longlode.mining.gate.features import measure
from longlode.mining.gate.fit import FOLDS, HEAVIER, fit_length, write_gate
from longlode.mining.gate.parsed_text import ParsedText
from longlode.synthetic.families import FAMILIES

LENGTHS = {4096: 4, 16_384: 3}
"""Tokens, and how often the set is drawn."""
PIECE_CHARACTERS, MOST_CHARACTERS = 60_000, 600_000
ASSETS = Path(__file__).parents[1] / "src" / "longlode" / "assets" / "gate"


def main() -> None:
    """Measure, fit, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", default="fit", help="of the works, with commas between; never heldout")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("-o", "--out", type=Path, default=ASSETS)
    options = parser.parse_args()
    sides = [side for side in options.sides.split(",") if side in SIDES[:2]]
    works = [w for side in sides for w in works_of(side) if w.domain != "list"]
    # Texts of a fold are judged by what was learned on the others.
    others = [learn(w for w in works if fold_of(w.group) != fold) for fold in range(FOLDS)]
    known = learn(works)
    families = [label for makers in FAMILIES.values() for label in makers]
    by_length, names = {}, []
    for length in map(int, options.lengths.split(",")):
        samples, features = measured(sides, length, LENGTHS.get(length, 2), others)
        names = list(features[0])
        values = np.array([[row[name] for name in names] for row in features])
        by_length[length] = fit_length(
            values,
            [s.label for s in samples],
            [f"{s.domain}/{s.language}" for s in samples],
            families,
            heavier=HEAVIER,
            folds=[fold_for(sample, number) for number, sample in enumerate(samples)],
        )
        print(
            f"{length}: {len(samples)} texts, {sum(s.label == COHERENT for s in samples)} coherent",
            flush=True,
        )
    write_gate(options.out, names, families, by_length, known)
    print(f"written to {options.out}")


def measured(
    sides: Sequence[str], length: int, draws: int, others: Sequence[Directions]
) -> tuple[list[Sample], list[dict[str, float]]]:
    """Texts of one length, and their features."""
    samples, features = [], []
    for side in sides:
        for seed in range(draws):
            for number, sample in enumerate(gate_set(side, length, seed=seed, per_family=3)):
                features.append(measure(ParsedText.of(sample.text), others[fold_for(sample, number)]))
                samples.append(sample)
    return samples, features


def fold_of(group: str) -> int:
    """0 to FOLDS - 1, by the group of a work."""
    return hashlib.sha256(group.encode()).digest()[1] % FOLDS


def fold_for(sample: Sample, number: int) -> int:
    """That of its work; of texts of several works, or of none, by their number."""
    return fold_of(sample.group_of_work) if sample.work else number % FOLDS


def learn(works: Iterable[Work]) -> Directions:
    """What pieces of works say of direction: as long as documents are, and laid out in as many ways."""
    readings = []
    for work in works:
        text = work.text[:MOST_CHARACTERS]
        for start in range(0, max(1, len(text) - PIECE_CHARACTERS // 2), PIECE_CHARACTERS):
            piece = text[start : start + PIECE_CHARACTERS]
            readings.append(ParsedText.of(laid_out(piece, random.Random(piece[:200]))))
    return learn_directions(readings)


if __name__ == "__main__":
    main()
