"""Vectors of documents by hashed n-grams of tokens, and exact repeats: no model, the same on every machine.

A document is the bag of its tokens and pairs of tokens, weighed by tf-idf, in a space of 2^16 hashed features that a
random matrix of signs takes to a few dimensions. Coordinates are rounded to whole numbers, so that inner products are
exact in float32 in whatever order they are summed, and nearest neighbours do not depend on the machine.
"""

from collections.abc import Callable

import numpy as np

from longlode.core.errors import InputError
from longlode.packing.packers.rows import raw_numbers

SCALE = 127
"""Length of a vector before it is rounded: inner products are SCALE ** 2 times the cosine."""
_FEATURES = 1 << 16
_PAIR, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFF51AFD7ED558CCD)
_IDF_DOCUMENTS = 20_000

Tokens = Callable[[int], np.ndarray]
"""Function from the index of a document to its tokens, int `[T]`."""


def embed(tokens: Tokens, num_documents: int, *, dimensions: int, max_tokens: int) -> np.ndarray:
    """Embed the first `max_tokens` tokens of each document; float32 `[num_documents, dimensions]` of whole numbers.

    A document without tokens is the zero vector. Source: feature hashing, Weinberger et al. 2009, arXiv 0902.2206;
    random projection, Achlioptas 2003, "Database-friendly random projections".
    """
    signs = _signs(dimensions)
    weights = _inverse_document_frequencies(tokens, num_documents, max_tokens)
    found = np.zeros((num_documents, dimensions), dtype=np.float32)
    for document in range(num_documents):
        features, counts = _features(tokens(document)[:max_tokens])
        if len(features):
            scaled = (1 + np.log(counts)) * weights[features]
            found[document] = scaled.astype(np.float32) @ signs[features]
    return rounded(found)


def rounded(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors to the length `SCALE` and round their coordinates; float32, same shape."""
    lengths = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    return np.rint(SCALE * vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


def load_vectors(path: str, documents: np.ndarray, num_documents: int) -> np.ndarray:
    """Read vectors made by a model: a .npy file with one row for each document of the shards, in their order.

    Args: documents, the ones wanted; num_documents, of the shards. Raises: InputError for a file of another shape.
    """
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"the vectors {path} cannot be read: {error}. Expected a .npy file.") from None
    if vectors.ndim != 2 or len(vectors) != num_documents:
        raise InputError(
            f"the vectors {path} have the shape {vectors.shape}; expected one row for each of the {num_documents:,} "
            "documents of the shards."
        )
    return rounded(np.asarray(vectors[documents], dtype=np.float32))


def _features(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hash tokens and pairs of neighbouring tokens; return the features, ascending, and their counts."""
    ids = tokens.astype(np.uint64)
    pairs = ids[:-1] * _PAIR + ids[1:] + np.uint64(1 << 32)
    hashed = np.concatenate([ids, pairs]) * _MIX  # unsigned arithmetic wraps around
    return np.unique((hashed >> np.uint64(48)).astype(np.int64), return_counts=True)


def _inverse_document_frequencies(tokens: Tokens, num_documents: int, max_tokens: int) -> np.ndarray:
    """Weigh each feature by the logarithm of the share of documents without it; float64 `[_FEATURES]`."""
    sample = np.unique(np.linspace(0, num_documents - 1, min(num_documents, _IDF_DOCUMENTS)).astype(np.int64))
    holding = np.zeros(_FEATURES)
    for document in sample.tolist():
        holding[_features(tokens(document)[:max_tokens])[0]] += 1
    return np.log((1 + len(sample)) / (0.5 + holding))


def _signs(dimensions: int) -> np.ndarray:
    """Draw the random matrix, float32 `[_FEATURES, dimensions]` of -1 and 1."""
    numbers = raw_numbers(-(-_FEATURES * dimensions // 64), "longlode related signs")
    bits = np.unpackbits(numbers.astype("<u8").view(np.uint8))[: _FEATURES * dimensions]
    return (bits.astype(np.float32) * 2 - 1).reshape(_FEATURES, dimensions)
