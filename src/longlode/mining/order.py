"""Order contrast: does a passage need the text before it, or would any other text of the document do?

A word that comes back after a while is no proof of long-range dependency: a log repeats its words, a list of
quotations its format, a mixture of documents whatever they share. What sets a coherent document apart is that
the words of a passage are announced *where they should be*. So every token is asked twice:

    hit_t       1 if its type stands in the `span` tokens before the near context, else 0
    expected_t  share of all windows of `span` tokens elsewhere in the document in which its type stands
    contrast_t  hit_t - expected_t; 0 if the type stands in the near context: nothing is left to explain

The document is its own control: priming by format, topic, language and repetition is in both terms and
cancels; shuffling the document brings the expectation of the contrast to 0. `expected` is exact (all windows,
by counting covered starts), not sampled; the whole costs O(n log n) for n tokens, and no model is run.

    position:   ... [ mid: span tokens ][ near ] t ...            hit looks at mid
    elsewhere:  every window that ends before mid starts, or starts after the `near` tokens that follow t
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class OrderContrast:
    """Result for n tokens.

    contrast: float64 `[n]`, hit - expected in [-1, 1]; 0 for types that the near context holds.
    counted: bool `[n]`, positions with a whole mid window before them and at least `span` control windows.
    """

    contrast: np.ndarray
    counted: np.ndarray


class Occurrences:
    """Positions of every token type, sorted by (type, position); answers range queries for all at once."""

    def __init__(self, tokens: np.ndarray) -> None:
        """Args: tokens int `[n]`. position, previous: `[n]`, of each occurrence in that order; -1 before the first."""
        self.num_tokens = num_tokens = len(tokens)
        self.position = np.argsort(tokens, kind="stable").astype(np.int64)
        in_order = tokens[self.position]
        is_first = np.r_[True, in_order[1:] != in_order[:-1]]
        firsts = np.flatnonzero(is_first)
        group = np.cumsum(is_first) - 1
        self._base = group * (num_tokens + 1)
        self._key = self._base + self.position
        self.previous = np.where(is_first, -1, np.r_[-1, self.position[:-1]])
        self._group_start = firsts[group]
        self._group_stop = np.r_[firsts[1:], num_tokens][group]

    def stands_in(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Whether each token's type stands anywhere in its [start, stop)."""
        beyond = np.searchsorted(self._key, self._base + np.clip(stop, 0, self.num_tokens))
        return (beyond > self._group_start) & (self.position[beyond - 1] >= start)

    def covered_starts(self, span: int, last: np.ndarray) -> np.ndarray:
        """Number of window starts in [0, last] whose window of `span` tokens holds the token's type.

        An occurrence at o covers the starts (o - span, o]; the overlap with the one before it counts once.
        """
        last = np.clip(last, -1, self.num_tokens - span)
        new_starts = np.minimum(span, self.position - self.previous)
        total = np.r_[0, np.cumsum(new_starts)]
        beyond = np.maximum(np.searchsorted(self._key, self._base + last, side="right"), self._group_start)
        whole = total[beyond] - total[self._group_start]
        at = np.minimum(beyond, self.num_tokens - 1)
        first_new = np.maximum(self.previous[at], self.position[at] - span)
        partial = np.where(beyond < self._group_stop, np.maximum(0, last - first_new), 0)
        return whole + partial


def order_contrast(tokens: np.ndarray, *, near: int, span: int) -> OrderContrast:
    """Contrast the mid-range past of every token with the rest of its document (formulas: module docstring).

    Args:
      tokens: int `[n]`, the document's token ids in order.
      near: tokens right before a token that count as near context, >= 0.
      span: tokens of a window, >= 1.
    Returns: OrderContrast; nothing is counted in a document of fewer than about near + 3 span tokens.
    """
    num_tokens = len(tokens)
    if num_tokens == 0:
        return OrderContrast(np.zeros(0), np.zeros(0, dtype=bool))
    seen = Occurrences(np.asarray(tokens))
    at = seen.position
    last_before = at - near - 2 * span
    first_after = at + near + 1
    before = seen.covered_starts(span, last_before)
    whole = seen.covered_starts(span, np.full(num_tokens, num_tokens - span))
    after = np.where(first_after <= num_tokens - span, whole - seen.covered_starts(span, first_after - 1), 0)
    num_before = np.clip(np.minimum(last_before, num_tokens - span) + 1, 0, None)
    num_windows = num_before + np.clip(num_tokens - span - first_after + 1, 0, None)
    expected = (np.where(last_before >= 0, before, 0) + after) / np.maximum(num_windows, 1)
    hit = seen.stands_in(at - near - span, at - near)
    is_near = seen.previous >= at - near
    counted = (at >= near + span) & (num_windows >= span)
    contrast = np.where(counted & ~is_near, hit - expected, 0.0)
    result = OrderContrast(np.empty(num_tokens), np.empty(num_tokens, dtype=bool))
    result.contrast[at], result.counted[at] = contrast, counted
    return result


def mean_and_error(values: np.ndarray, counted: np.ndarray, span: int) -> tuple[float, float | None]:
    """Mean of the counted values, and its standard error by leaving out one block of `span` tokens at a time.

    What neighbouring tokens say is no independent evidence: a topic lasts for many of them. Blocks as long as a
    window are nearly independent, and the jackknife weighs them by what they count.

        se^2 = (B - 1) / B * sum_b (mean without block b - mean of those)^2       B blocks that count anything

    Args: values float, counted bool `[n]`; span in tokens.
    Returns: the mean (0 if nothing is counted); None for the error with fewer than two blocks.
    """
    places = np.flatnonzero(counted)
    if not len(places):
        return 0.0, None
    chosen = values[places]
    block = (places - places[0]) // span
    sizes = np.bincount(block).astype(np.float64)
    sums = np.bincount(block, weights=chosen)[sizes > 0]
    sizes = sizes[sizes > 0]
    if len(sizes) < 2:
        return float(chosen.mean()), None
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    spread = np.sum((without - without.mean()) ** 2)
    return float(chosen.mean()), float(np.sqrt((len(sizes) - 1) / len(sizes) * spread))


def information(tokens: np.ndarray) -> np.ndarray:
    """Nats of each token under the document's own unigram frequencies: -log(count / n), float64 `[n]`."""
    _, kind, count = np.unique(tokens, return_inverse=True, return_counts=True)
    return -np.log(count[kind.reshape(-1)] / max(len(tokens), 1))
