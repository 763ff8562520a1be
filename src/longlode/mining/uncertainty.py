"""How sure is a score that is made of pairs? The jackknife over targets.

Pairs of one target rest on one reading of it and are no independent evidence, so whole rows are left out, one target
at a time. R rows with sums s_r over their n_r pairs:

    mean over pairs   se^2 = (R - 1) / R * sum_r (mean without row r - mean of those)^2
    sum over pairs    se^2 = R / (R - 1) * sum_r (s_r - mean s)^2

The error is that of a document of the same kind: another text by the same hand, read at as many targets.
"""

import numpy as np


def mean_error(targets: np.ndarray, values: np.ndarray) -> float | None:
    """Standard error of the mean of `values` over pairs. Args: both `[P]`, P >= 1. None with fewer than two targets."""
    sums, sizes = _rows(targets, values)
    if len(sums) < 2:
        return None
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    return float(np.sqrt((len(sums) - 1) / len(sums) * np.sum((without - without.mean()) ** 2)))


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
