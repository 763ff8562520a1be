"""Long-range dependency between the segments of one document: the formulas, in numpy and float64.

A document is cut into segments s_0 .. s_{n-1} of L tokens. A reader gives PPL(s_i), the perplexity of the
last L - 1 tokens of s_i read alone, and PPL(s_i|s_j), that of the same tokens read after an earlier segment
s_j. Then

    strength      DST_ij = (PPL(s_i) - PPL(s_i|s_j)) / PPL(s_i)                         j < i
    distance      DDI_ij = (i - j) / (n - 1)
    specificity   DSP_i  = (log m - H_i) / log m,   H_i the entropy of softmax_j (PPL(s_i) - PPL(s_i|s_j))
                           over the m segments s_j that were read before s_i; 1 if m = 1
    LDS = sum over the pairs with DST_ij > 0.1 of (alpha DST_ij + beta DDI_ij) DSP_i    alpha = beta = 1

Source: ProLong, "Long Context is Not Long at All", arXiv 2405.17915; the code at
  github.com/October2001/ProLong.

Deviations of the released code (`release_*` here, the rest in `scorers/release.py`):

    R1  distance is (i - j) / (W - 1) with W = window / L, 256 for every document, clipped to [0, 1];
        n of the document does not enter.
    R2  specificity: where the softmax underflows to an exact 0, 1e-12 is added to every probability of the
        row, which is then renormalised; the result is clipped to [0, 1].
    R3  a row with one sampled s_j has specificity 1, the maximum: at 500 pairs on 256 segments a row holds
        about two.
    R4  the softmax runs over raw perplexity differences, so a hard segment (PPL in the hundreds) saturates
        it.
    R5  LDS is a plain sum, not divided by the number of pairs: with all pairs, longer documents score higher.
    R6  a NaN sum becomes 0.

Everything below is a pure function of arrays. Dimensions: S segments, P pairs, L tokens of a segment.
"""

import numpy as np

FORMULAS_VERSION = 1
"""Part of every result's name: raise it when a number that this file gives changes."""

STRENGTH_THRESHOLD = 0.1
"""A pair counts as dependent above this strength (paper and release)."""

RELEASE_FLOOR = 1e-12
"""Amount that the release adds to a row of probabilities that holds an exact 0 (R2)."""


def perplexity(nll: np.ndarray) -> np.ndarray:
    """exp of the mean over the last axis. Args: nll `[..., L-1]` nats. Returns: float64 `[...]`."""
    return np.exp(np.mean(nll, axis=-1, dtype=np.float64))


def strength(ppl_alone: np.ndarray, ppl_given: np.ndarray) -> np.ndarray:
    """DST: the share of a target's perplexity that its source removes; negative when the source increases it.

    Args: ppl_alone `[P]` of each pair's target read alone; ppl_given `[P]` of it read after the source.
    Returns: float64 `[P]`, at most 1.
    """
    return (ppl_alone - ppl_given) / ppl_alone


def distance(targets: np.ndarray, sources: np.ndarray, num_segments: int) -> np.ndarray:
    """DDI: (i - j) / (n - 1), 1 for the first and the last segment.

    Args: targets i, sources j `[P]`, places in the document; num_segments, n of the whole document, at least
      2.
    """
    return (targets - sources) / (num_segments - 1)


def release_distance(targets: np.ndarray, sources: np.ndarray, window_segments: int) -> np.ndarray:
    """DDI as released (R1): (i - j) / (W - 1), clipped to [0, 1], W = window_segments the same for every
    document.

    In the release i and j count the sampled segments, so a document cut down to W of them has its distances
    shrunk.
    """
    return np.clip((targets - sources) / (window_segments - 1), 0.0, 1.0)


def specificity(differences: np.ndarray, floor: float = 0.0) -> float:
    """DSP of one target: 1 when one source alone helps it, 0 when all help it equally.

    Args:
      differences: PPL(s_i) - PPL(s_i|s_j) `[m]` over the sampled s_j, m >= 1, not divided by PPL(s_i).
      floor: added to each probability of a row that holds an exact 0, which is then renormalised; 0 (the
        limit p log p -> 0) or, for the release, RELEASE_FLOOR.
    """
    num_sources = len(differences)
    if num_sources == 1:
        return 1.0
    weights = np.exp(differences - np.max(differences))
    chances = weights / weights.sum()
    if floor > 0 and (chances == 0).any():
        chances = (chances + floor) / (chances + floor).sum()
    chances = chances[chances > 0]
    entropy = -np.sum(chances * np.log(chances))
    most = np.log(num_sources)
    return float(np.clip((most - entropy) / most, 0.0, 1.0))


def specificity_rows(
    targets: np.ndarray, differences: np.ndarray, num_segments: int, floor: float = 0.0
) -> np.ndarray:
    """DSP of every segment. Args: targets, differences `[P]`; num_segments S; floor as in `specificity`.

    Returns: float64 `[S]`, NaN for a segment that is no pair's target.
    """
    rows = np.full(num_segments, np.nan)
    order = np.argsort(targets, kind="stable")
    present, starts = np.unique(targets[order], return_index=True)
    for target, row in zip(present, np.split(differences[order], starts[1:]), strict=True):
        rows[target] = specificity(row, floor)
    return rows


def lds(
    strengths: np.ndarray,
    distances: np.ndarray,
    specificities: np.ndarray,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    threshold: float = STRENGTH_THRESHOLD,
) -> float:
    """LDS: the sum over pairs stronger than `threshold` (strictly) of (alpha DST + beta DDI) DSP.

    Args: strengths, distances `[P]`; specificities `[P]`, the DSP of each pair's target.
    Returns: at least 0; grows with the number of pairs (R5).
    """
    dependent = strengths > threshold
    return float(np.sum(((alpha * strengths + beta * distances) * specificities)[dependent]))


def lds_terms(strengths: np.ndarray, distances: np.ndarray, specificities: np.ndarray) -> np.ndarray:
    """Contribution of each pair to `lds` with its defaults, float64 `[P]`; 0 for a pair that is not dependent."""
    return np.where(strengths > STRENGTH_THRESHOLD, (strengths + distances) * specificities, 0.0)


def release_lds(strengths: np.ndarray, distances: np.ndarray, specificities: np.ndarray) -> float:
    """LDS as released: alpha = beta = 1 and R6, a NaN sum counts as 0."""
    total = lds(strengths, distances, specificities)
    return 0.0 if np.isnan(total) else total


def strength_max_mean(targets: np.ndarray, strengths: np.ndarray) -> float:
    """Mean over the targets of their strongest pair: each segment counts once, however many pairs it is in.

    Args: targets, strengths `[P]`, P >= 1.
    """
    _, rows = np.unique(targets, return_inverse=True)
    best = np.full(rows.max() + 1, -np.inf)
    np.maximum.at(best, rows, strengths)
    return float(best.mean())
