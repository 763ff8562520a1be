"""The pool of known make that `benchmarks.claims.mining` chooses from.

Works are cut into rows of equal length. In each work one row of `SHARE`, at random, stays as it is; the others are cut
into pieces of `PIECE` tokens, and the pieces of all such rows of a domain are dealt out anew. So no token stands twice,
and text in order and spliced text hold the same works in the same shares: they differ in order alone. A spliced row
stands in the place of a row of some work and counts as that work's; its pieces come from all works of the domain.

Long works give no more rows than the pool needs, the same number each, so that no book outweighs the others; a pool
of fewer rows per arm than there are works is made of fewer works.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

import numpy as np

from benchmarks.works import Work
from longlode.core.errors import ConfigError
from longlode.corpus import Tokenizer

PIECE = 150
"""Tokens of a spliced piece, some 500 characters."""
SHARE = 4
"""One row in so many is text in order; an arm takes one in so many of each work."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Rows int32 `[n, length + 1]`; per row the work that it counts as, its domain, and if it is text in order."""

    rows: np.ndarray
    works: np.ndarray
    domains: np.ndarray
    in_order: np.ndarray
    vocab_size: int

    @cached_property
    def fingerprint(self) -> str:
        """Name of the content."""
        return hashlib.sha256(self.rows.tobytes() + self.in_order.tobytes()).hexdigest()

    @cached_property
    def of_work(self) -> list[np.ndarray]:
        """Numbers of the rows of each work, works in the order of their names."""
        return [np.flatnonzero(self.works == name) for name in np.unique(self.works)]


def make_pool(works: Sequence[Work], tokenizer: Tokenizer, *, length: int, tokens: int, seed: int) -> Pool:
    """The pool of the English works that are no lists, from which every arm can take `tokens` tokens.

    Raises: ConfigError when the works are too few for that.
    """
    rng, width = np.random.default_rng(seed), length + 1
    cut, domain_of = {}, {}
    for work in works:
        if work.language == "en" and work.domain != "list":
            ids = tokenizer.encode_long(work.text)
            cut[work.id] = ids[: len(ids) // width * width].reshape(-1, width)
            domain_of[work.id] = work.domain
    wanted = -(-tokens // length)
    names_of = works_for(domain_of, {name: len(rows) for name, rows in cut.items()}, wanted, seed)
    taken = rows_per_work({name: len(cut[name]) for name in names_of}, wanted)
    rows: list[np.ndarray] = []
    names: list[str] = []
    in_order: list[bool] = []
    for domain in sorted(set(domain_of.values())):
        spliced: list[np.ndarray] = []
        owners: list[str] = []
        for name in sorted(name for name, kind in domain_of.items() if kind == domain and taken.get(name)):
            own = cut[name][rng.permutation(len(cut[name]))[: taken[name]]]
            kept = len(own) // SHARE
            rows += list(own[:kept])
            names += [name] * kept
            in_order += [True] * kept
            spliced += list(own[kept:])
            owners += [name] * (len(own) - kept)
        rows += _dealt_anew(spliced, rng)
        names += owners
        in_order += [False] * len(owners)
    return Pool(
        np.stack(rows).astype(np.int32),
        np.array(names),
        np.array([domain_of[name] for name in names]),
        np.array(in_order),
        tokenizer.vocab_size,
    )


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


def _dealt_anew(rows: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """As many rows, of the same pieces, each in a place of its own length."""
    if not rows:
        return []
    cuts = [np.split(row, np.arange(PIECE, len(row), PIECE)) for row in rows]
    pieces = [piece for cut in cuts for piece in cut[:-1]]
    ends = [cuts[number][-1] for number in rng.permutation(len(cuts))]
    deal = rng.permutation(len(pieces)).reshape(len(rows), -1)
    return [
        np.concatenate([*(pieces[number] for number in own), end])
        for own, end in zip(deal, ends, strict=True)
    ]
