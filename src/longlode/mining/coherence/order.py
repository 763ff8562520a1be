"""Order contrast: how much more a passage reuses words of the text before it than words of elsewhere in the document.

A word that returns after a while is no proof of long-range dependency: a log repeats its words, a list of
quotations its format, a mixture of documents the words that they share. In a coherent document the words of a passage
occur before it more often than *elsewhere*. So every token is looked up twice:

    hit_t       1 if its type occurs in the `span` tokens before the near context, else 0
    expected_t  share of all windows of `span` tokens elsewhere in the document in which its type occurs
    contrast_t  hit_t - expected_t; 0 if the type occurs in the near context: nothing is left to explain

The document is its own control: priming by format, topic, language and repetition is in both terms and
cancels; shuffling the document brings the expectation of the contrast to 0. `expected` is exact (all windows,
by counting covered starts), not sampled; the whole costs O(n log n) for n tokens, and no model is run.

    position:   ... [ mid: span tokens ][ near ] t ...            hit looks at mid
    elsewhere:  every window that ends before mid starts, or starts after the `near` tokens that follow t
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_BLOCK = 1 << 20
"""Tokens, or occurrences, that are processed at once, to bound the memory beside the results."""


@dataclass(frozen=True)
class OrderContrast:
    """Result for n tokens.

    contrast: float64 `[n]`, hit - expected in [-1, 1]; 0 for types that the near context holds.
    counted: bool `[n]`, positions with a whole mid window before them and at least `span` control windows.
    """

    contrast: np.ndarray
    counted: np.ndarray


class Occurrences:
    """Positions of every token type, sorted by (type, position).

    num_tokens: n, of the document. position: int `[m]`, where each occurrence is; first: int `[num_types + 1]`, where
    each type begins, and m. m is n unless types were left out. The derived arrays (`previous`, `group`, `key`) are
    made at first use; for a long document, in `parts`.
    """

    def __init__(self, tokens: np.ndarray, wanted: np.ndarray | None = None) -> None:
        """Args: tokens int `[n]`; wanted bool `[n]`, where the tokens stand that count, whole types only; None: all."""
        self.num_tokens = len(tokens)
        narrow = np.int32 if self.num_tokens < 1 << 30 else np.int64
        self.position, self.first = _places_by_type(tokens, wanted, narrow)

    @classmethod
    def _run(cls, num_tokens: int, position: np.ndarray, first: np.ndarray) -> "Occurrences":
        """From its parts."""
        run = cls.__new__(cls)
        run.num_tokens, run.position, run.first = num_tokens, position, first
        return run

    def parts(self) -> "Iterator[Occurrences]":
        """Runs of whole types in order, of about a million occurrences each; their groups count from 0 again."""
        if len(self.position) <= _BLOCK:
            yield self
            return
        start, num_types = 0, len(self.first) - 1
        while start < num_types:
            full = int(np.searchsorted(self.first, self.first[start] + _BLOCK, side="right")) - 1
            stop = max(start + 1, full)
            begin = self.first[start]
            position = self.position[begin : self.first[stop]]
            yield self._run(self.num_tokens, position, self.first[start : stop + 1] - begin)
            start = stop

    @cached_property
    def previous(self) -> np.ndarray:
        """Position of the previous occurrence of each one's type, -1 for the first, int `[m]`."""
        previous = np.empty_like(self.position)
        previous[1:] = self.position[:-1]
        previous[self.first[:-1]] = -1
        return previous

    @cached_property
    def group(self) -> np.ndarray:
        """The number of the type of each occurrence, from 0 in the order of the types, int `[m]`."""
        return np.repeat(np.arange(len(self.first) - 1, dtype=self.position.dtype), np.diff(self.first))

    @cached_property
    def key(self) -> np.ndarray:
        """Type and position in one number, ascending, int64 `[m]`."""
        return self.group.astype(np.int64) * (self.num_tokens + 1) + self.position

    def information(self) -> np.ndarray:
        """As `information`, of the tokens that count; 0 for the others."""
        result = np.zeros(self.num_tokens)
        for part in self.parts():
            result[part.position] = part.nats()[part.group]
        return result

    def nats(self) -> np.ndarray:
        """Information of each type under the frequencies in the document: -log(count / n), float64 `[num_types]`."""
        return -np.log(np.diff(self.first) / max(self.num_tokens, 1))


class Coverage:
    """Windows of `span` tokens that hold a type, counted by their starts.

    An occurrence at o covers the starts (o - span, o]; the overlap with the one before it counts once.
    """

    def __init__(self, seen: Occurrences, span: int) -> None:
        """Args: span in tokens, 1 to the length of the document."""
        self._seen = seen
        self._before_new = np.maximum(seen.previous, seen.position - span)
        self._total = np.zeros(len(seen.position) + 1, dtype=np.int64)
        np.cumsum(seen.position - self._before_new, out=self._total[1:])
        last = np.full(len(seen.first) - 1, seen.num_tokens - span)
        self.whole = self.up_to(seen.first[:-1], last)
        """Number of windows that hold each type, int64 `[num_types]`."""

    def up_to(self, rows: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Number of window starts in [0, last] whose window holds the type of an occurrence, int64 `[r]`.

        Args: rows int `[r]`, numbers of occurrences; last int `[r]`, -1 to n - span.
        """
        seen = self._seen
        group = seen.group[rows]
        begin, end = seen.first[group], seen.first[group + 1]
        if len(seen.first) == 2:  # one type, maybe of a very long run: its positions are in order as they are
            beyond = np.searchsorted(seen.position, last.astype(seen.position.dtype), side="right")
        else:
            beyond = np.searchsorted(seen.key, seen.key[rows] + (last - seen.position[rows]), side="right")
        whole = self._total[beyond] - self._total[begin]
        partial = last - self._before_new[np.minimum(beyond, len(seen.position) - 1)]
        return np.where(beyond < end, whole + np.maximum(partial, 0), whole)


def stable_order(kinds: np.ndarray) -> np.ndarray:
    """`np.argsort(kinds, kind="stable")` by 16 bits at a time, which numpy sorts by radix: ten times faster."""
    if len(kinds) == 0 or kinds.min() < 0 or kinds.max() >= 1 << 32:
        return np.argsort(kinds, kind="stable")
    order = np.argsort(kinds.astype(np.uint16), kind="stable")
    if kinds.max() >= 1 << 16:
        upper = (kinds >> 16).astype(np.uint16)
        order = order[np.argsort(upper[order], kind="stable")]
    return order


def _places_by_type(
    tokens: np.ndarray, wanted: np.ndarray | None, narrow: type
) -> tuple[np.ndarray, np.ndarray]:
    """Places sorted by (type, place), `narrow` `[m]`; and where each type begins among them, and m."""
    n = len(tokens)
    if n <= _BLOCK or tokens.min() < 0 or tokens.max() >= 2 * n:
        places: np.ndarray = (
            np.arange(n, dtype=narrow) if wanted is None else np.flatnonzero(wanted).astype(narrow)
        )
        kinds = tokens if wanted is None else tokens[places]
        order = stable_order(kinds)
        begin = _run_starts(kinds[order])
        return places[order], np.append(begin, len(order))
    # A counting sort over blocks: the whole is never sorted at once, which would take 16 bytes more per token.
    counts = np.zeros(int(tokens.max()) + 1, dtype=np.int64)
    for start, stop in _blocks(n):
        kinds = tokens[start:stop] if wanted is None else tokens[start:stop][wanted[start:stop]]
        found = np.bincount(kinds)
        counts[: len(found)] += found
    ends = np.cumsum(counts)
    free = ends - counts  # where the next occurrence of each type goes
    position: np.ndarray = np.empty(int(ends[-1]), dtype=narrow)
    for start, stop in _blocks(n):
        inside = np.arange(stop - start) if wanted is None else np.flatnonzero(wanted[start:stop])
        kinds = tokens[start:stop][inside]
        order = stable_order(kinds)
        begin = _run_starts(kinds[order])
        types, lengths = kinds[order[begin]], np.diff(np.append(begin, len(order)))
        # The k-th of the block, in a run of its type that begins at b, is number k - b of the type in the block.
        position[np.repeat(free[types] - begin, lengths) + np.arange(len(order))] = start + inside[order]
        free[types] += lengths
    return position, np.append(0, ends[counts > 0])


def _run_starts(in_order: np.ndarray) -> np.ndarray:
    """Start of each run of equal values, int64."""
    is_first = np.ones(len(in_order), dtype=bool)
    np.not_equal(in_order[1:], in_order[:-1], out=is_first[1:])
    return np.flatnonzero(is_first)


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, _BLOCK):
        yield start, min(start + _BLOCK, n)


def order_contrast(tokens: np.ndarray, *, near: int, span: int) -> OrderContrast:
    """Contrast the mid-range past of every token with the rest of its document (formulas: module docstring).

    Args:
      tokens: int `[n]`, the document's token ids in order.
      near: tokens right before a token that count as near context, >= 0.
      span: tokens of a window, >= 1.
    Returns: OrderContrast; nothing is counted in a document of fewer than about near + 3 span tokens.
    """
    return contrast_of(Occurrences(np.asarray(tokens)), near=near, span=span)


def contrast_of(seen: Occurrences, *, near: int, span: int) -> OrderContrast:
    """`order_contrast` of tokens whose occurrences have been found.

    Only the necessary positions are searched: a type in the near context has no contrast, and for any other the
    previous occurrence decides if it is a hit.
    """
    n = seen.num_tokens
    contrast, counted = np.zeros(n), np.zeros(n, dtype=bool)
    for start, stop in _blocks(n):
        counted[start:stop] = _is_counted(np.arange(start, stop, dtype=seen.position.dtype), n, near, span)
    if counted.any():
        for part in seen.parts():
            _contrast_types(part, near, span, counted, contrast)
    return OrderContrast(contrast, counted)


def weighted_contrast(seen: Occurrences, *, near: int, span: int) -> OrderContrast:
    """`contrast_of` with each contrast times the information of its type, nats, in the same array."""
    result = contrast_of(seen, near=near, span=span)
    for part in seen.parts():
        result.contrast[part.position] *= part.nats()[part.group]
    return result


def _contrast_types(
    seen: Occurrences, near: int, span: int, counted: np.ndarray, contrast: np.ndarray
) -> None:
    """Write the contrast of the occurrences of some types; all else as of `OrderContrast`."""
    n = seen.num_tokens
    rows = np.flatnonzero(counted[seen.position] & (seen.previous < seen.position - near))
    if not len(rows):
        return
    at, coverage = seen.position[rows], Coverage(seen, span)
    holding = np.zeros(len(rows), dtype=np.int64)
    some = np.flatnonzero(at >= near + 2 * span)
    holding[some] = coverage.up_to(rows[some], at[some] - (near + 2 * span))
    some = np.flatnonzero(at < n - span - near)
    after = coverage.up_to(rows[some], at[some] + near)
    holding[some] += coverage.whole[seen.group[rows[some]]] - after
    hit = seen.previous[rows] >= at - (near + span)
    contrast[at] = hit - holding / _num_control(at, n, near, span)


def _is_counted(at: np.ndarray, num_tokens: int, near: int, span: int) -> np.ndarray:
    """Positions with a whole mid window and enough windows to compare it with, bool."""
    return (at >= near + span) & (_num_control(at, num_tokens, near, span) >= span)


def _num_control(at: np.ndarray, num_tokens: int, near: int, span: int) -> np.ndarray:
    """Windows of `span` tokens that end before mid starts, or start after the near tokens that follow."""
    before = np.minimum(at - (near + 2 * span), num_tokens - span) + 1
    return np.maximum(before, 0) + np.maximum(num_tokens - span - near - at, 0)


def mean_and_error(values: np.ndarray, counted: np.ndarray, span: int) -> tuple[float, float | None]:
    """Mean of the counted values, and its standard error by leaving out one block of `span` tokens at a time.

    Neighbouring tokens are not independent evidence: a topic lasts for many of them. Blocks as long as a
    window are nearly independent, and the jackknife weighs them by what they count.

        se^2 = (B - 1) / B * sum_b (mean without block b - mean of those)^2       B blocks that count anything

    Args: values float, counted bool `[n]`; span in tokens.
    Returns: the mean (0 if nothing is counted); None for the error with fewer than two blocks.
    """
    places = np.flatnonzero(counted)
    if not len(places):
        return 0.0, None
    chosen = values[places]
    block = places  # in place: the document may be long
    block -= places[0]
    block //= span
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
    return Occurrences(np.asarray(tokens)).information()
