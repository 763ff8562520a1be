"""Seams: where does a document fall apart?

Cut a document anywhere. Of the rare words on the right of the cut, some stand on its left as well: names, terms,
identifiers. In a coherent document that holds at every cut. Where a text of another author begins it does not, however
coherent both are: what they share is common words, and those are weighed by how rare they are in text at large
(`mining.background`), the commonest not at all.

    left  = the G words before the cut        right = the G words after it
    link share = sum of w over the types in both / sum of w over the types on the right
    w    = -log share of windows of text at large that hold the type; 0 if that share is above a limit

`link_shares` gives it for cuts all along the document, exactly, in O(n) once occurrences are sorted. `far_shares` says
how much of the rare vocabulary of a place stands at a distance: small for a mixture of documents, and for one whose
names change.
"""

import numpy as np

from longlode.mining.order import Coverage, Occurrences

CUT_STEP = 10
"""Words from one cut to the next."""


def link_shares(seen: Occurrences, weight: np.ndarray, span: int) -> tuple[np.ndarray, np.ndarray]:
    """The link share at every CUT_STEP-th cut that has `span` words on either side.

    Args: seen, of the words, those without weight left out or not; weight float `[m]`, >= 0, of each occurrence's type;
      span in words.
    Returns: float64 shares in [0, 1], 0 where nothing on the right has weight; and the cuts, as the place of the first
      word on the right; both empty below 2 span words.
    """
    n = seen.num_tokens
    cuts = np.arange(span, n - span + 1, CUT_STEP)
    if not len(cuts):
        return np.zeros(0), cuts
    place, before = seen.position, seen.previous
    # A type is on the right of c if its first occurrence from c on is b < c + span.
    first = np.maximum(np.maximum(before, place - span) + 1, 0)
    right = _covered(first, place + 1, weight, n)
    # Neighbouring occurrences a < b of a type link the cuts c with c - span <= a < c <= b < c + span.
    near = np.flatnonzero((before >= 0) & (place - before < 2 * span))
    stop = np.minimum(place[near], before[near] + span) + 1
    linked = _covered(first[near], stop, weight[near], n)
    return np.clip(linked[cuts] / np.maximum(right[cuts], 1e-12), 0.0, 1.0), cuts


def _covered(first: np.ndarray, stop: np.ndarray, weight: np.ndarray, n: int) -> np.ndarray:
    """Sum of the weights of the ranges [first, stop) that hold each place 0..n, float64 `[n + 1]`; stop <= n."""
    steps = np.bincount(first, weights=weight, minlength=n + 1)
    steps -= np.bincount(stop, weights=weight, minlength=n + 1)
    return np.cumsum(steps, out=steps)


def far_shares(seen: Occurrences, span: int, gap: int) -> np.ndarray:
    """For each word, the share of the windows of `span` words at least `gap` words away that hold its type.

    That far away: gap words before it or more, or gap - 1 after it, lie between.

    Args: seen, of n words; span, gap in words, >= 1. Returns: float64 `[n]`; 0 where no window is that far away, where
      the type was left out, and everywhere if a window is longer than the document.
    """
    n, at = seen.num_tokens, seen.position
    result = np.zeros(n)
    if span > n:
        return result
    coverage = Coverage(seen, span)
    holding = np.zeros(len(at), dtype=np.int64)
    some = np.flatnonzero(at >= gap + span)
    holding[some] = coverage.up_to(some, at[some] - (gap + span))
    some = np.flatnonzero(at <= n - span - gap)
    holding[some] += coverage.whole[seen.group[some]] - coverage.up_to(some, at[some] + (gap - 1))
    windows = np.maximum(at - (gap + span - 1), 0) + np.maximum(n - span - gap + 1 - at, 0)
    result[at] = holding / np.maximum(windows, 1)
    return result
