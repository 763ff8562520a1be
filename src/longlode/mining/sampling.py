"""Random draws, seeded per document: the draws for a document depend on that document alone.

Each draw has its own Philox stream, keyed by the seed, the document's id, the hash of its text and what is
drawn. So other documents, the number of workers, the order of work and a resumed run change nothing.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from longlode.core.fingerprints import fingerprint


def document_rng(seed: int, document_id: str, text_hash: str, purpose: str) -> np.random.Generator:
    """A generator that is a function of its arguments. `purpose` keeps the draws for one document apart."""
    return cast(np.random.Generator, _LaterGenerator(seed, document_id, text_hash, purpose))


class _LaterGenerator:
    """A generator that is made at its first use: most scorers draw nothing, and making one takes as long as reading
    a short document.
    """

    def __init__(self, *named: int | str) -> None:
        self._named = named
        self._made: np.random.Generator | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying and pickling ask for what no generator has
            raise AttributeError(name)
        if self._made is None:
            self._made = np.random.Generator(np.random.Philox(key=int(fingerprint(list(self._named)), 16)))
        return getattr(self._made, name)


def sample_segments(num_total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of `num_total` segments, uniform without replacement, in document order; int64 `[count]`."""
    if num_total <= count:
        return np.arange(num_total)
    return np.sort(rng.choice(num_total, size=count, replace=False))


def sample_pairs(
    num_segments: int, num_pairs: int | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (i, j) with j < i, uniform without replacement; all of them for None or when there are no more.

    Returns: targets i, sources j, int32 `[P]`, ordered by (i, j).
    """
    targets, sources = np.tril_indices(num_segments, -1)
    if num_pairs is not None and num_pairs < len(targets):
        drawn = np.sort(rng.choice(len(targets), size=num_pairs, replace=False))
        targets, sources = targets[drawn], sources[drawn]
    return targets.astype(np.int32), sources.astype(np.int32)


def nested_pairs(
    targets: np.ndarray, sources: np.ndarray, start: int, stop: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs number `start` to `stop - 1` of a random order, fewer when it ends before.

    Called with generators in the same state, ranges side by side share no pair, and the first T of pairs that were
    drawn uniformly are T that were drawn uniformly.

    Args: targets, sources `[P]`.
    Returns: of both, those in the range, in the order in which they were given.
    """
    chosen = np.sort(rng.permutation(len(targets))[start:stop])
    return targets[chosen], sources[chosen]


def sample_rows(
    num_segments: int, num_pairs: int | None, row_pairs: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs in whole rows: targets at random, each with `row_pairs` sources (all it has, if it has fewer).

    A figure per target then rests on many values; uniform pairs give each target about two.

    Args: num_pairs, at most so many in all, at least one row even if that is cut short; None for all pairs
      there are.
    Returns: targets i, sources j, int32 `[P]`, ordered by (i, j).
    """
    if num_pairs is None:
        return sample_pairs(num_segments, None, rng)
    targets: list[np.ndarray] = []
    sources: list[np.ndarray] = []
    left = num_pairs
    for target in rng.permutation(np.arange(1, num_segments)):
        size = min(row_pairs, int(target), num_pairs)
        if size > left:
            break
        targets.append(np.full(size, target))
        sources.append(rng.choice(target, size=size, replace=False))
        left -= size
    all_targets, all_sources = np.concatenate(targets), np.concatenate(sources)
    order = np.lexsort((all_sources, all_targets))
    return all_targets[order].astype(np.int32), all_sources[order].astype(np.int32)


def sample_foreign(others: Sequence[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """Segments of other documents, spread over as many documents as possible.

    Documents are visited in a random order, one new segment of each per round, until `count` are found: a long
    document does not crowd out the short ones.

    Args: others, the segments `[S_k, L]` of each other document, at least one document.
    Returns: `[F, L]`, F <= count; less when the others have fewer segments in all.
    """
    order = rng.permutation(len(others))
    shuffled: dict[int, np.ndarray] = {}
    found: list[np.ndarray] = []
    for round_number in range(count):
        if len(found) == count:
            break
        for index in order:
            if round_number >= len(others[index]) or len(found) == count:
                continue
            if index not in shuffled:
                shuffled[index] = rng.permutation(len(others[index]))
            found.append(others[index][shuffled[index][round_number]])
    return np.stack(found)
