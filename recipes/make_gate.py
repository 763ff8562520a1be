"""Fit the packaged gate: python -m recipes.make_gate [--sides fit] [--out src/longlode/assets/gate]

Texts and negatives are those of `benchmarks/gate_set.py`, of the given sides of the works. The tables of direction
must not know a text that they judge: for the texts of the one half of the works they are counted over the other half;
those that are written are counted over all. The packaged weights are fitted on the `fit` side, so that `dev` and
`heldout` can judge them.
"""

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.gate_set import COHERENT, Sample, gate_set
from benchmarks.works import SIDES, Work, works_of
from longlode.mining.gate.features import measure
from longlode.mining.gate.fit import fit_length, write_gate
from longlode.mining.gate.reading import Reading
from longlode.mining.gate.signs import Directions, learn_directions
from longlode.synthetic.families import FAMILIES

LENGTHS = {4096: 4, 16_384: 4}
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
    halves = [[w for w in works if half_of(w.group) == number] for number in (0, 1)]
    # Texts of the one half are judged by tables of the other.
    others = [learn_directions(pieces(half)) for half in reversed(halves)]
    known = learn_directions(pieces(works))
    families = [label for makers in FAMILIES.values() for label in makers]
    by_length, names = {}, []
    for length in map(int, options.lengths.split(",")):
        samples, features = measured(sides, length, LENGTHS.get(length, 2), others)
        names = list(features[0])
        values = np.array([[row[name] for name in names] for row in features])
        cells = [f"{s.domain}/{s.language}" for s in samples]
        by_length[length] = fit_length(values, [s.label for s in samples], cells, families)
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
                half = half_of(sample.group_of_work) if sample.label == COHERENT else number % 2
                features.append(measure(Reading.of(sample.text), others[half]))
                samples.append(sample)
    return samples, features


def half_of(group: str) -> int:
    """0 or 1, by the group of a work."""
    return hashlib.sha256(group.encode()).digest()[0] % 2


def pieces(works: Sequence[Work]) -> Iterator[Reading]:
    """The works in pieces as long as documents are."""
    for work in works:
        text = work.text[:MOST_CHARACTERS]
        for start in range(0, max(1, len(text) - PIECE_CHARACTERS // 2), PIECE_CHARACTERS):
            yield Reading.of(text[start : start + PIECE_CHARACTERS])


if __name__ == "__main__":
    main()
