"""The pools of known make that `benchmarks.claims.mining` chooses from.

Works are cut into rows of equal length. In each work one row of `SHARE`, at random, stays as it is. In the pool
`spliced` the others are cut into pieces of `PIECE` tokens, and the pieces of all such rows of a domain are dealt out
anew. So no token stands twice, and text in order and spliced text hold the same works in the same shares: they differ
in order alone. A spliced row stands in the place of a row of some work and counts as that work's; its pieces come from
all works of the domain. In the pool `mixed` the others are junk of ten kinds (`benchmarks/claims/mining_junk.py`).

Long works give no more rows than the pool needs, the same number each, so that no book outweighs the others; a pool
of fewer rows per arm than there are works is made of fewer works.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

import numpy as np

from benchmarks.claims.mining_junk import Slot, dealt_anew, make_junk
from benchmarks.works import Work
from longlode.core.errors import ConfigError
from longlode.corpus import Tokenizer

MAKES = ("spliced", "mixed")
IN_ORDER = "in order"
SHARE = 4
"""One row in so many is text in order; an arm takes one in so many of each work."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Rows int32 `[n, length + 1]`; per row the work that it counts as, its domain, and its kind.

    kinds: "in order", "spliced", or another kind of junk.
    """

    rows: np.ndarray
    works: np.ndarray
    domains: np.ndarray
    kinds: np.ndarray
    vocab_size: int

    @cached_property
    def in_order(self) -> np.ndarray:
        """Per row, if it is text in order."""
        return self.kinds == IN_ORDER

    @cached_property
    def fingerprint(self) -> str:
        """Name of the content."""
        return hashlib.sha256(self.rows.tobytes() + self.in_order.tobytes()).hexdigest()

    @cached_property
    def of_work(self) -> list[np.ndarray]:
        """Numbers of the rows of each work, works in the order of their names."""
        return [np.flatnonzero(self.works == name) for name in np.unique(self.works)]


def make_pool(
    works: Sequence[Work], tokenizer: Tokenizer, *, length: int, tokens: int, seed: int, make: str = "spliced"
) -> Pool:
    """The pool of the English works that are no lists, from which every arm can take `tokens` tokens.

    Args: make, one of MAKES: what the rows that are not in order are.
    Raises: ConfigError when the works are too few for that.
    """
    rng, width = np.random.default_rng(seed), length + 1
    ids = {
        work.id: tokenizer.encode_long(work.text)
        for work in works
        if work.language == "en" and work.domain != "list"
    }
    cut = {name: own[: len(own) // width * width].reshape(-1, width) for name, own in ids.items()}
    by_name = {work.id: work for work in works if work.id in ids}
    domain_of = {name: work.domain for name, work in by_name.items()}
    wanted = -(-tokens // length)
    names_of = works_for(domain_of, {name: len(rows) for name, rows in cut.items()}, wanted, seed)
    taken = rows_per_work({name: len(cut[name]) for name in names_of}, wanted)
    rows: list[np.ndarray] = []
    names: list[str] = []
    kinds: list[str] = []
    slots: list[Slot] = []
    for domain in sorted(set(domain_of.values())):
        junk: list[np.ndarray] = []
        owners: list[str] = []
        for name in sorted(name for name, kind in domain_of.items() if kind == domain and taken.get(name)):
            drawn = rng.permutation(len(cut[name]))[: taken[name]]
            kept = len(drawn) // SHARE
            rows += list(cut[name][drawn[:kept]])
            names += [name] * kept
            kinds += [IN_ORDER] * kept
            junk += list(cut[name][drawn[kept:]])
            owners += [name] * (len(drawn) - kept)
            if make == "mixed":
                slots += [
                    _slot(ids[name], place * width, width, by_name[name], tokenizer) for place in drawn[kept:]
                ]
        if make == "spliced":
            rows += dealt_anew(junk, rng)
            names += owners
            kinds += ["spliced"] * len(owners)
    if make == "mixed":
        made, of_kinds = make_junk(slots, tokenizer, rng)
        rows += made
        names += [slot.work.id for slot in slots]
        kinds += of_kinds
    return Pool(
        np.stack(rows).astype(np.int32),
        np.array(names),
        np.array([domain_of[name] for name in names]),
        np.array(kinds),
        tokenizer.vocab_size,
    )


def _slot(ids: np.ndarray, start: int, width: int, work: Work, tokenizer: Tokenizer) -> Slot:
    """The place of a row; its text goes on for a quarter of its length, or begins as much before it at the end."""
    first = min(start, max(0, len(ids) - width * 5 // 4))
    text = tokenizer.decode(ids[first : first + width * 5 // 4].tolist())
    return Slot(ids[start : start + width], text, work)


def works_for(
    domain_of: Mapping[str, str], there_are: Mapping[str, int], wanted: int, seed: int
) -> list[str]:
    """Works that are long enough; no more than `wanted` of them, then drawn from all domains in turn.

    Args: domain_of, there_are, by work: its domain, its rows.
    """
    rng = np.random.default_rng(seed)
    usable = [name for name in sorted(domain_of) if there_are[name] >= SHARE]
    by_domain: dict[str, list[str]] = {domain: [] for domain in sorted(set(domain_of.values()))}
    for name in usable:
        by_domain[domain_of[name]].append(name)
    drawn = {domain: list(rng.permutation(names)) for domain, names in by_domain.items()}
    turns = [name for turn in zip_longest(*drawn.values()) for name in turn if name is not None]
    return sorted(str(name) for name in turns[:wanted])


def rows_per_work(there_are: Mapping[str, int], wanted: int) -> dict[str, int]:
    """Rows to take of each work, multiples of SHARE, at most some number: the smallest that gives each arm `wanted`.

    Args: there_are, rows by work.
    Raises: ConfigError when all rows do not suffice.
    """
    most = max(there_are.values(), default=0)
    for cap in range(SHARE, most + SHARE, SHARE):
        taken = {name: min(number, cap) // SHARE * SHARE for name, number in there_are.items()}
        if sum(taken.values()) >= SHARE * wanted:
            return taken
    has = sum(number // SHARE for number in there_are.values())
    raise ConfigError(
        f"The works give an arm {has} rows, and {wanted} are to be read; expected fewer --tokens."
    )
