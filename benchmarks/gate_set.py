"""The labelled set of the gate: stretches of works, and 41 families of text that is not one document in its order.

python -m benchmarks.gate_set --side dev --length 16384       counts per label and domain
"""

import argparse
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.works import SIDES, Work, group_of, works_of
from longlode.synthetic import controls
from longlode.synthetic.families import FAMILIES, FROM_ONE, Draw, cut_tokens, stretch

COHERENT = "coherent"
_MOSTLY_TABLES = frozenset({"stdlib/encodings", "stdlib/html", "stdlib/locale.py"})
"""Works that are mostly tables (maps of characters, entities of HTML, names of languages): not coherent text."""
_MERGED = {"module": "stdlib", "package": "stdlib"}
_SPARE = 1.12
"""Makers are asked for so much more than is kept, since joining and permuting may shorten a text."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One text of the set. label: "coherent" or the family; group: of the family; domain, language: origin.

    work: id of the work that it is made from; "" if from several or none.
    """

    label: str
    group: str
    domain: str
    language: str
    work: str
    text: str

    @property
    def group_of_work(self) -> str:
        """Group of the work that it is made from; "" if from several or none."""
        return group_of(self.work)


def gate_set(
    side: str, length: int, *, seed: int = 0, per_family: int = 2, heldout: bool = False
) -> Iterator[Sample]:
    """Samples of one side, all `length` tokens of 4 bytes long.

    Args: per_family, texts of each family in each domain and language (half, at least one, of families that say little
      of the domain); heldout, as of `works_of`.
    """
    works = works_of(side, heldout=heldout)
    yield from samples_of(works, length, name=side, seed=seed, per_family=per_family)


def samples_of(
    works: Sequence[Work], length: int, *, name: str, seed: int = 0, per_family: int = 2
) -> Iterator[Sample]:
    """As `gate_set`, of these works. Args: name, of the set: part of the seed of every draw."""
    lists = [work for work in works if work.domain == "list"]
    shelves: dict[tuple[str, str], list[Work]] = {}
    for work in works:
        if work.domain != "list":
            domain = _MERGED.get(work.domain, work.domain)
            shelves.setdefault((domain, work.language), []).append(work)
    for (domain, language), members in shelves.items():
        yield from _coherent(members, domain, language, length, seed)
        strangers = [work for key, others in shelves.items() if key != (domain, language) for work in others]
        for group, makers in FAMILIES.items():
            count = max(1, per_family // 2) if group in FROM_ONE else per_family
            for label, make in makers.items():
                for number in range(count):
                    rng = random.Random(f"{seed}:{name}:{length}:{domain}:{language}:{label}:{number}")
                    draw = Draw(members, int(length * _SPARE), rng, strangers, lists)
                    text = make(draw)
                    cut = None if text is None else cut_tokens(laid_out(text, rng), length)
                    if cut is not None:
                        work = draw.used[0] if len(draw.used) == 1 else ""
                        yield Sample(label, group, domain, language, work, cut)


def _coherent(
    members: Sequence[Work], domain: str, language: str, length: int, seed: int
) -> Iterator[Sample]:
    """Two stretches of a work three times as long, else one; more where the domain has few works."""
    for work in members:
        if work.id in _MOSTLY_TABLES:
            continue
        size = len(work.text.encode()) // 4
        count = min(max(1, size // (2 * length)), 2 if len(members) > 6 else 4)
        for number in range(count):
            rng = random.Random(f"{seed}:{length}:{work.id}:{number}")
            text = stretch(work.text, int(length * _SPARE), rng)
            text = None if text is None else cut_tokens(laid_out(text, rng), length)
            if text is not None:
                yield Sample(COHERENT, COHERENT, domain, language, work.id, text)


def laid_out(text: str, rng: random.Random) -> str:
    """The text in one of three layouts, so that no label is known by its blank lines.

    As it is; blocks parted by a blank line; blocks of prose in one line each.
    """
    choice = rng.random()
    if choice < 0.4:
        return text
    parts = controls.blocks(text)
    if choice < 0.75 or controls.looks_like_code(text):
        return "\n\n".join(parts)
    return "\n".join(" ".join(part.split()) for part in parts)


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=SIDES[:2], default="dev")
    parser.add_argument("--length", type=int, default=16_384)
    arguments = parser.parse_args()
    found = Counter((s.label, f"{s.domain}/{s.language}") for s in gate_set(arguments.side, arguments.length))
    for label in dict.fromkeys(label for label, _ in found):
        row = {domain: n for (x, domain), n in found.items() if x == label}
        print(f"{label:24} {sum(row.values()):4}  " + " ".join(f"{d} {n}" for d, n in row.items()))


if __name__ == "__main__":
    main()
