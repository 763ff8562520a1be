"""Boundaries: the link share of every cut, which is low where two texts were joined.

Cut a document anywhere. Some of the rare words on the right of the cut occur on its left as well: names, terms,
identifiers. In a coherent document that holds at every cut. It does not where a text of another author begins, however
coherent both are: the words they share are common ones. Words are therefore weighed by their rarity in a background
corpus (`mining.coherence.background`), the commonest by 0.

    left  = the G words before the cut        right = the G words after it
    link share = sum of w over the types in both / sum of w over the types on the right
    w    = -log share of windows of the background corpus that hold the type; 0 if that share is above a limit

`link_shares` gives it for cuts all along the document, exactly, in O(n) once occurrences are sorted. `far_shares` gives
the share of the rare vocabulary of a place that occurs at a distance: small for a mixture of documents, and for one
whose names change.
"""

from collections.abc import Callable

import numpy as np

from longlode.mining.coherence.order import Coverage, Occurrences

_Ranges = Callable[[Occurrences], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Occurrences that have a range of cuts: their rows, the first cut of each, and the one after its last."""

CUT_STEP = 10
"""Words from one cut to the next."""


def link_shares(seen: Occurrences, weight: np.ndarray, span: int) -> tuple[np.ndarray, np.ndarray]:
    """The link share at every CUT_STEP-th cut that has `span` words on either side.

    Args: seen, of the words, those without weight left out or not; weight float `[num_types]`, >= 0, of each type in
      `seen`; span in words.
    Returns: float64 shares in [0, 1], 0 where nothing on the right has weight; and the cuts, as the place of the first
      word on the right; both empty below 2 span words.
    """
    n = seen.num_tokens
    cuts = np.arange(span, n - span + 1, CUT_STEP)
    if not len(cuts):
        return np.zeros(0), cuts
    right = _covered(seen, _right_of(span), weight)[cuts]
    linked = _covered(seen, _linked_by(span), weight)[cuts]
    return np.clip(linked / np.maximum(right, 1e-12), 0.0, 1.0), cuts


def _right_of(span: int) -> _Ranges:
    """Cuts for which each occurrence puts its type on the right."""

    def ranges(seen: Occurrences) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # A type is on the right of c if its first occurrence from c on is b < c + span.
        return np.arange(len(seen.position)), _first_cut(seen, span), seen.position + 1

    return ranges


def _linked_by(span: int) -> _Ranges:
    """Cuts that each occurrence and the one before it link."""

    def ranges(seen: Occurrences) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # Neighbouring occurrences a < b of a type link the cuts c with c - span <= a < c <= b < c + span.
        place, before = seen.position, seen.previous
        near = np.flatnonzero((before >= 0) & (place - before < 2 * span))
        return near, _first_cut(seen, span)[near], np.minimum(place[near], before[near] + span) + 1

    return ranges


def _first_cut(seen: Occurrences, span: int) -> np.ndarray:
    return np.maximum(np.maximum(seen.previous, seen.position - span) + 1, 0)


def _covered(seen: Occurrences, ranges: _Ranges, weight: np.ndarray) -> np.ndarray:
    """Sum of the weights of the ranges [first, stop) that hold each place 0..n, float64 `[n + 1]`; stop <= n."""
    steps, ends = np.zeros(seen.num_tokens + 1), np.zeros(seen.num_tokens + 1)
    num_types = 0
    for part in seen.parts():
        rows, first, stop = ranges(part)
        weights = weight[num_types + part.group[rows]]
        np.add.at(steps, first, weights)
        np.add.at(ends, stop, weights)
        num_types += len(part.first) - 1
    steps -= ends
    return np.cumsum(steps, out=steps)


def far_shares(seen: Occurrences, span: int, gap: int) -> np.ndarray:
    """For each word, the share of the windows of `span` words at least `gap` words away that hold its type.

    That far away: gap words before it or more, or gap - 1 after it, lie between.

    Args: seen, of n words; span, gap in words, >= 1. Returns: float64 `[n]`; 0 where no window is that far away, where
      the type was left out, and everywhere if a window is longer than the document.
    """
    result = np.zeros(seen.num_tokens)
    if span <= seen.num_tokens:
        for part in seen.parts():
            result[part.position] = _far_of(part, span, gap)
    return result


def _far_of(seen: Occurrences, span: int, gap: int) -> np.ndarray:
    """The far share of each occurrence, float64 `[m]`."""
    n, at, coverage = seen.num_tokens, seen.position, Coverage(seen, span)
    holding = np.zeros(len(at), dtype=np.int64)
    some = np.flatnonzero(at >= gap + span)
    holding[some] = coverage.up_to(some, at[some] - (gap + span))
    some = np.flatnonzero(at <= n - span - gap)
    holding[some] += coverage.whole[seen.group[some]] - coverage.up_to(some, at[some] + (gap - 1))
    windows = np.maximum(at - (gap + span - 1), 0) + np.maximum(n - span - gap + 1 - at, 0)
    shares: np.ndarray = holding / np.maximum(windows, 1)
    return shares
