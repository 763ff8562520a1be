"""Rank statistics: AUC of two groups, rank correlation of two arrays."""

import numpy as np

_LEAST = 3


def wins(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Compare all pairs, float `[P, N]`: 1 if the positive is higher, 0.5 for a tie or if either is NaN, else 0."""
    difference = positive[:, None] - negative[None]
    return (difference > 0) + 0.5 * ((difference == 0) | np.isnan(difference))


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Share of (positive, negative) pairs ranked correctly, ties counted as half. Source: Mann and Whitney 1947."""
    return float(wins(positive, negative).mean())


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's correlation of two arrays `[n]` over the entries finite in both, ties by their mean rank.

    Returns: a number in [-1, 1]; None for fewer than three such entries, and if one of the arrays is constant.
    """
    both = np.isfinite(first) & np.isfinite(second)
    if both.sum() < _LEAST:
        return None
    one, other = ranks(first[both]), ranks(second[both])
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of `[n]` from 1, ties by their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    means: np.ndarray = (last - (count - 1) / 2)[place.reshape(-1)]
    return means
