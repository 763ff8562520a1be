"""Seams: where does a document fall apart?

Cut a document anywhere. Of the rare words on the right of the cut, some stand on its left as well: names, terms,
identifiers. In a coherent document that holds at every cut. Where a text of another author begins it does not, however
coherent both are: what they share is common words, and those are weighed by how rare they are in text at large
(`mining.background`), the commonest not at all.

    left  = the G words before the cut        right = the G words after it
    link share = sum of w over the types in both / sum of w over the types on the right
    w    = -log share of windows of text at large that hold the type; 0 if that share is above a limit

`link_shares` gives it for cuts all along the document, exactly, in O(n log n). `far_share` says how much of the rare
vocabulary of a place stands at a distance: small for a mixture of documents, and for one whose names change.
"""

import numpy as np

from longlode.mining.order import Occurrences

CUT_STEP = 10
"""Words from one cut to the next."""


def link_shares(kinds: np.ndarray, weights: np.ndarray, span: int) -> tuple[np.ndarray, np.ndarray]:
    """The link share at every CUT_STEP-th cut that has `span` words on either side.

    Args: kinds int `[n]`, the type of each word, from 0; weights float `[num_types]`, >= 0; span in words.
    Returns: float64 shares in [0, 1], 0 where nothing on the right has weight; and the cuts, as the place of the first
      word on the right; both empty below 2 span words.
    """
    n = len(kinds)
    cuts = np.arange(span, n - span + 1, CUT_STEP)
    if not len(cuts):
        return np.zeros(0), cuts
    place = np.argsort(kinds, kind="stable")
    kind = kinds[place]
    before = np.r_[-1, place[:-1]]
    again = np.r_[False, kind[1:] == kind[:-1]]
    weight = weights[kind]
    # Neighbouring occurrences a < b of a type link the cuts c with c - span <= a < c <= b < c + span.
    a, b = before[again], place[again]
    linked = _covered(np.maximum(a, b - span) + 1, np.minimum(b, a + span) + 1, weight[again], n)
    # A type is on the right of c if its first occurrence from c on is b < c + span.
    nearest = np.where(again, before, -1)
    right = _covered(np.maximum(np.maximum(nearest, place - span) + 1, 0), place + 1, weight, n)
    return np.clip(linked[cuts] / np.maximum(right[cuts], 1e-12), 0.0, 1.0), cuts


def _covered(first: np.ndarray, stop: np.ndarray, weight: np.ndarray, n: int) -> np.ndarray:
    """Sum of the weights of the ranges [first, stop) that hold each place 0..n, float64 `[n + 1]`."""
    some = stop > first
    steps = np.bincount(first[some], weights=weight[some], minlength=n + 2)
    steps -= np.bincount(np.minimum(stop[some], n + 1), weights=weight[some], minlength=n + 2)
    return np.cumsum(steps)[: n + 1]


def far_shares(kinds: np.ndarray, span: int, gap: int) -> np.ndarray:
    """For each word, the share of the windows of `span` words at least `gap` words away that hold its type.

    Args: kinds int `[n]`; span, gap in words, >= 1. Returns: float64 `[n]`; 0 where no window is that far away.
    """
    seen = Occurrences(kinds)
    n, at = len(kinds), seen.position
    last, first = at - gap - span, at + gap
    before = np.where(last >= 0, seen.covered_starts(span, last), 0)
    whole = seen.covered_starts(span, np.full(n, n - span))
    after = np.where(first <= n - span, whole - seen.covered_starts(span, np.minimum(first - 1, n - span)), 0)
    windows = np.clip(last + 1, 0, None) + np.clip(n - span - first + 1, 0, None)
    result = np.empty(n)
    result[at] = (before + after) / np.maximum(windows, 1)
    return result
