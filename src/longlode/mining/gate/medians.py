"""Median and quantile of short arrays, as numpy's but without its handling of axes, which costs ten times as much."""

import numpy as np


def median(values: np.ndarray) -> float:
    """`np.median` of `[n]`, n >= 1, without NaN."""
    return middle_of(np.sort(values))


def middle_of(ordered: np.ndarray) -> float:
    """As `median`, of ascending values."""
    n = len(ordered)
    half = n // 2
    return float(ordered[half]) if n % 2 else float((ordered[half - 1] + ordered[half]) / 2)


def quantile_of(ordered: np.ndarray, share: float) -> float:
    """`np.quantile` (linear) of ascending values `[n]`, n >= 1. Args: share in [0, 1]."""
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    part, step = at - low, ordered[high] - ordered[low]
    # From the nearer end, as numpy has it: the result is exact at both.
    return float(ordered[low] + step * part if part < 0.5 else ordered[high] - step * (1 - part))
