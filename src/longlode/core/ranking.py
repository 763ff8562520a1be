"""How well numbers rank: AUC of two groups, and the rank correlation of two orders."""

import numpy as np

_LEAST = 3


def wins(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """float `[P, N]`: 1 where the positive is higher, 0.5 for a tie or where either is NaN, else 0."""
    difference = positive[:, None] - negative[None]
    return (difference > 0) + 0.5 * ((difference == 0) | np.isnan(difference))


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Share of (positive, negative) pairs that are ranked rightly. Source: Mann and Whitney 1947."""
    return float(wins(positive, negative).mean())


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Rank correlation of two arrays `[n]` over the places that are finite in both, ties by their mean rank.

    Returns: None for fewer than three such places, and where one of the arrays is constant.
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
