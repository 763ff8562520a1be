"""Cheap signals without a model: length, the baselines that every scorer must beat, and measures of repetition."""

import zlib

import numpy as np

from longlode.core.defaults import BYTES_PER_TOKEN
from longlode.core.distinct import distinct

REPETITION_TOKENS = 8
"""Length of the n-grams of `repetition`: long enough that prose rarely repeats one by chance."""

_GZIP_LEVEL = 6
_WBITS_GZIP = 31


def estimated_tokens(text: str) -> float:
    """Length of a text in tokens of BYTES_PER_TOKEN bytes."""
    return len(text.encode("utf-8", "surrogatepass")) / BYTES_PER_TOKEN


def gzip_ratio(text: str | bytes) -> float | None:
    """Compressed bytes over raw bytes at gzip's default level 6; None for an empty text.

    Low for repetitive text, about 0.3 to 0.45 for prose; the 18 bytes of gzip's frame push short texts above 1.
    Args: text, or its UTF-8 bytes.
    Source: the document filter of OLMo 3 (arXiv 2512.13961) ranks long documents by it.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if not raw:
        return None
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _WBITS_GZIP)
    return (len(packer.compress(raw)) + len(packer.flush())) / len(raw)


def repetition(segments: np.ndarray) -> float:
    """Share of the 8-token windows inside the segments that occurred earlier in the document; 0 if there are
    none.

    Windows do not cross from one segment to the next, as the segments may be a sample of the document.
    Args: segments int `[S, L]`, in document order.
    """
    names = _window_names(segments, REPETITION_TOKENS)
    if names.size == 0:
        return 0.0
    return 1.0 - len(distinct(names)) / names.size


def far_overlap(
    segments: np.ndarray, min_distance: int, num_tokens: int = 4, max_segments: float = np.inf
) -> float:
    """Share of n-token windows that occur at least `min_distance` segments earlier, wherever else they occur.

    Counted over the segments that have that many before them; 0 if none has, or nothing is rare.
    Args: segments int `[S, L]`, in document order; min_distance in segments, >= 1; num_tokens, n; max_segments,
      count only the windows that occur in at most this many different segments.
    """
    names = _window_names(segments, num_tokens)
    num_segments, per_segment = names.shape
    if num_segments <= min_distance or per_segment == 0:
        return 0.0
    # np.unique gives the first place of each window, and places run in document order.
    _, first, which = np.unique(names.ravel(), return_index=True, return_inverse=True)
    which = which.reshape(names.shape)
    first_segment = (first // per_segment)[which]
    is_far = np.arange(num_segments)[:, None] - first_segment >= min_distance
    is_rare = _spread(which)[which] <= max_segments
    num_rare = int(is_rare[min_distance:].sum())
    return float((is_far & is_rare)[min_distance:].sum() / num_rare) if num_rare else 0.0


def _spread(which: np.ndarray) -> np.ndarray:
    """Number of rows that hold each number. Args: which int `[S, W]`, every number from 0 up. Returns: int `[n]`."""
    # A row counts once per number: after sorting it, only the first of equal neighbours is new.
    in_order = np.sort(which, axis=1)
    is_new = np.ones(in_order.shape, dtype=bool)
    is_new[:, 1:] = in_order[:, 1:] != in_order[:, :-1]
    return np.bincount(in_order[is_new])


def _window_names(segments: np.ndarray, num_tokens: int) -> np.ndarray:
    """A 64-bit hash for each window of `num_tokens` tokens inside each segment; uint64 `[S, L - n + 1]`."""
    num_segments, length = segments.shape
    if length < num_tokens:
        return np.zeros((num_segments, 0), dtype=np.uint64)
    # Random odd weights make a linear hash; arithmetic wraps modulo 2^64.
    weights = np.random.Generator(np.random.Philox(key=num_tokens)).integers(
        0, 1 << 63, size=num_tokens, dtype=np.uint64
    )
    weights = weights * np.uint64(2) + np.uint64(1)
    tokens = segments.astype(np.uint64)
    names = np.zeros((num_segments, length - num_tokens + 1), dtype=np.uint64)
    for place, weight in enumerate(weights):
        names += tokens[:, place : place + names.shape[1]] * weight
    return names
