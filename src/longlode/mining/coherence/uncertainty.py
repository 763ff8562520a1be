"""Standard errors of scores by the jackknife: leave out one part, score the rest, and measure how far that moves.

    se^2 = (R - 1) / R * sum_r (score without part r - mean of those)^2        R parts

For a score made of pairs the parts are targets: pairs of one target rest on one reading of it and are no independent
evidence, so whole rows are left out. R rows with sums s_r over their n_r pairs:

    mean over pairs   as above
    sum over pairs    se^2 = R / (R - 1) * sum_r (s_r - mean s)^2

For a score made of places in the document the parts are stretches of equal length (`Stretches`); means and quantiles of
what remains come from sums and ranks that are computed once.

The error is that of a document of the same kind: another text by the same author, read at as many targets.
"""

from itertools import pairwise

import numpy as np


def jackknife_error(without: np.ndarray) -> float:
    """The error from the scores float `[R]` that leave out one part each; parts of equal weight."""
    return float(np.sqrt((len(without) - 1) / len(without) * np.sum((without - without.mean()) ** 2)))


def mean_error(targets: np.ndarray, values: np.ndarray) -> float | None:
    """Standard error of the mean of `values` over pairs. Args: both `[P]`, P >= 1. None with fewer than two targets."""
    sums, sizes = _rows(targets, values)
    if len(sums) < 2:
        return None
    return jackknife_error((sums.sum() - sums) / (sizes.sum() - sizes))


def sum_error(targets: np.ndarray, values: np.ndarray) -> float | None:
    """Standard error of the sum of `values` over pairs. Args: both `[P]`, P >= 1. None with fewer than two targets."""
    sums, _ = _rows(targets, values)
    if len(sums) < 2:
        return None
    return float(np.sqrt(len(sums) / (len(sums) - 1) * np.sum((sums - sums.mean()) ** 2)))


def _rows(targets: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each target."""
    _, row = np.unique(targets, return_inverse=True)
    row = row.reshape(-1)
    return np.bincount(row, weights=values), np.bincount(row).astype(np.float64)


class Stretches:
    """A document of n places cut into B stretches of equal length, each to be left out in turn.

    first: int `[B + 1]`, the first place of each, and n: place i is in stretch b if b / B <= i / n < (b + 1) / B.
    """

    def __init__(self, num_places: int, num_stretches: int) -> None:
        """Args: num_places, n >= 0; num_stretches, B >= 1."""
        edges, n = np.linspace(0.0, 1.0, num_stretches + 1), max(num_places, 1)
        first = np.ceil(edges * n).astype(np.int64)
        first += first / n < edges  # the product may be rounded to the wrong side
        first -= (first - 1) / n >= edges
        self.first = np.minimum(first, num_places)
        self._others = 1.0 - np.eye(num_stretches)

    def means(
        self, values: np.ndarray, weights: np.ndarray | None = None, places: np.ndarray | None = None
    ) -> np.ndarray:
        """Weighted mean of all, and of the rest without each stretch, float64 `[1 + B]`; 0 where nothing weighs.

        Args: values, weights float `[m]`, weights >= 0, None: all 1; places int `[m]`, ascending, None: 0 to n - 1.
        """
        return self.ratios(values if weights is None else values * weights, weights, places)

    def ratios(
        self, weighted: np.ndarray, weights: np.ndarray | None = None, places: np.ndarray | None = None
    ) -> np.ndarray:
        """As `means`, of values that have been multiplied by their weights; weights may be bool as well."""
        first = self.first if places is None else np.searchsorted(places, self.first)
        sums, sizes, total = _sums(weighted, first), np.diff(first), len(weighted)
        if weights is not None:
            sizes, total = _sums(weights, first), weights.sum()
        # Sums over the others, not differences from the whole: nothing left is 0, and not a rounding error.
        sums = np.append(weighted.sum(), self._others @ sums)
        sizes = np.append(total, self._others @ sizes)
        return np.divide(sums, sizes, out=np.zeros(len(sums)), where=sizes > 0)

    def quantiles(self, places: np.ndarray, values: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """`np.quantile` of all values, and of the rest without each stretch, float64 `[Q, 1 + B]`; 0 of nothing.

        One sort serves all: the values of a stretch are left out by their ranks.
        Args: places int `[m]`, ascending, where the values `[m]` stand; levels float `[Q]`.
        """
        m, first = len(values), np.searchsorted(places, self.first)
        if m == 0:
            return np.zeros((len(levels), len(first)))
        order = np.argsort(values, kind="stable")
        stretch = np.repeat(np.arange(len(first) - 1, dtype=np.uint16), np.diff(first))
        left_out = np.argsort(stretch[order], kind="stable")  # ranks, ascending in each stretch
        # The i-th that is left out has so many kept values below it; the j-th kept one stands above all i with <= j.
        below = left_out - (np.arange(m) - first[stretch])
        keys = stretch.astype(np.int64) * (m + 1) + below
        kept = m - np.append(0, np.diff(first))
        exact = np.asarray(levels)[:, None] * np.maximum(kept - 1, 0)
        lower = np.floor(exact).astype(np.int64)
        ends = []
        for wanted in (lower, np.minimum(lower + 1, np.maximum(kept - 1, 0))):
            rank = wanted.copy()
            queries = np.arange(len(first) - 1) * (m + 1) + wanted[:, 1:]
            rank[:, 1:] += np.searchsorted(keys, queries, side="right") - first[:-1]
            ends.append(values[order[np.minimum(rank, m - 1)]])
        share, step = exact - lower, ends[1] - ends[0]
        # As `np.quantile` does it: from the nearer end, so that equal ends give just that value.
        between = np.where(share < 0.5, ends[0] + step * share, ends[1] - step * (1 - share))
        return np.where(kept > 0, between, 0.0)


def _sums(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Sums of values[first[b] : first[b + 1]], float64 `[B]`."""
    if values.dtype == bool:  # counted as they are: `reduceat` would add them as truth values
        return np.array([np.count_nonzero(values[a:b]) for a, b in pairwise(first)], dtype=np.float64)
    sums = np.zeros(len(first) - 1)
    some = np.flatnonzero(np.diff(first))
    if len(some):  # `reduceat` gives the next value where there is none to add
        sums[some] = np.add.reduceat(values, first[some])
    return sums
