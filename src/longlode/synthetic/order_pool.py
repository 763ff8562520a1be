"""A pool of token rows of which some are text in its order and the others the same works, cut up and shuffled.

It tells a choice by order from any other: both parts hold the same works in the same shares, and no token stands twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from longlode.core.errors import ConfigError

PIECE = 150
"""Tokens of a shuffled piece, some 500 characters."""


@dataclass(frozen=True, eq=False)
class OrderPool:
    """Rows of one width: rows int32 `[N, W]`; per row the work that it counts as, and if it is text in order, `[N]`.

    A shuffled row stands in the place of a row of some work and counts as that work's; its pieces come from all works.
    share: one row in so many of each work is in order, and a choice takes as many.
    """

    rows: np.ndarray
    works: np.ndarray
    in_order: np.ndarray
    share: int

    def best_of_each_work(self, values: np.ndarray) -> np.ndarray:
        """Numbers of the rows of highest value, one in `share` of each work. Args: values, `[N]`; NaN counts as least.

        The n-th number is of the same work whatever the values, so that two choices differ in their rows alone.
        """
        ranked = np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")
        return np.concatenate(
            [
                np.sort(own[: len(own) // self.share])
                for own in (ranked[self.works[ranked] == name] for name in np.unique(self.works))
            ]
        )


def make_order_pool(
    works: Mapping[str, np.ndarray],
    width: int,
    rng: np.random.Generator,
    *,
    share: int = 2,
    piece: int = PIECE,
) -> OrderPool:
    """Cut works into rows; one in `share` of each work stays, the pieces of the others are dealt out anew.

    Args: works, tokens by name; width and piece, in tokens. Each work gives a multiple of `share` rows, or none.
    Raises: ConfigError when no work is long enough.
    """
    kept: list[np.ndarray] = []
    others: list[np.ndarray] = []
    kept_names, other_names = [], []
    for name, tokens in works.items():
        cut = tokens[: len(tokens) // width * width].reshape(-1, width)
        own = cut[rng.permutation(len(cut))[: len(cut) // share * share]]
        num_kept = len(own) // share
        kept += list(own[:num_kept])
        others += list(own[num_kept:])
        kept_names += [name] * num_kept
        other_names += [name] * (len(own) - num_kept)
    if not kept:
        longest = max(map(len, works.values()), default=0)
        raise ConfigError(
            f"A pool of rows of {width:,} tokens needs a work of {share * width:,}; the longest has {longest:,}."
        )
    rows = np.stack([*kept, *dealt_anew(others, piece, rng)]).astype(np.int32)
    return OrderPool(rows, np.array(kept_names + other_names), np.arange(len(rows)) < len(kept), share)


def dealt_anew(rows: Sequence[np.ndarray], piece: int, rng: np.random.Generator) -> list[np.ndarray]:
    """As many rows of the same widths, made of the same pieces in random places; the last piece of a row is shorter."""
    if not rows:
        return []
    cuts = [np.split(row, np.arange(piece, len(row), piece)) for row in rows]
    pieces = [one for cut in cuts for one in cut[:-1]]
    # The short ends are dealt among themselves, so that every row is as long as before.
    ends = [cuts[number][-1] for number in rng.permutation(len(cuts))]
    deal = rng.permutation(len(pieces)).reshape(len(rows), -1)
    return [
        np.concatenate([*(pieces[number] for number in own), end])
        for own, end in zip(deal, ends, strict=True)
    ]
