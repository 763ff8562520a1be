"""Nearest neighbours of document vectors: exact in blocks, or approximate by faiss for many documents."""

import os
from typing import Any

import numpy as np

from longlode.core.errors import BackendError

_BLOCK = 1024
_TRAINING_PER_LIST = 64
_PROBES = 24


def neighbours(vectors: np.ndarray, count: int, *, exact: bool) -> tuple[np.ndarray, np.ndarray]:
    """Find the `count` nearest other vectors of each by inner product.

    Args: vectors, float32 `[N, D]` of whole numbers (`embeddings.rounded`); exact: compare all with all, at a cost of
      N * N * D; else with the vectors in the 24 nearest of about 4 sqrt(N) clusters.
    Returns: int64 `[N, count]`, nearest first and of equally near ones the first, -1 where there are no more; and their
      inner products, float32 `[N, count]`.
    Raises: BackendError if faiss is needed and not installed.
    """
    count = min(count, max(0, len(vectors) - 1))
    if not count:
        nothing = np.zeros((len(vectors), 0))
        return nothing.astype(np.int64), nothing.astype(np.float32)
    return _exact(vectors, count) if exact else _approximate(vectors, count)


def _exact(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    found = np.zeros((len(vectors), count), dtype=np.int64)
    products = np.zeros((len(vectors), count), dtype=np.float32)
    for start in range(0, len(vectors), _BLOCK):
        stop = min(start + _BLOCK, len(vectors))
        block = vectors[start:stop] @ vectors.T
        block[np.arange(stop - start), np.arange(start, stop)] = -np.inf
        # Of equal products the first index is to win: whole numbers leave room for the index below the product. A
        # float64 holds both exactly while (2 SCALE^2) N is below 2^53.
        keys = block.astype(np.float64) * len(vectors) - np.arange(len(vectors))
        nearest = np.argpartition(-keys, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(keys, nearest, axis=1), axis=1)
        found[start:stop] = np.take_along_axis(nearest, order, axis=1)
        products[start:stop] = np.take_along_axis(block, found[start:stop], axis=1)
    return found, products


def _approximate(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster a sample, put every vector into the list of its cluster, and search the nearest lists."""
    faiss = _faiss()
    faiss.omp_set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    size, dimensions = vectors.shape
    num_lists = max(1, min(int(4 * np.sqrt(size)), size // 8))
    quantizer = faiss.IndexFlatIP(dimensions)
    index = faiss.IndexIVFFlat(quantizer, dimensions, num_lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.niter, index.cp.min_points_per_centroid = 1, 10, 1
    step = max(1, size // (_TRAINING_PER_LIST * num_lists))
    index.train(np.ascontiguousarray(vectors[::step]))
    index.add(vectors)
    index.nprobe = min(num_lists, _PROBES)
    found = np.full((size, count), -1, dtype=np.int64)
    products = np.full((size, count), -np.inf, dtype=np.float32)
    for start in range(0, size, _BLOCK * 16):
        stop = min(start + _BLOCK * 16, size)
        near, indices = index.search(vectors[start:stop], count + 1)
        indices[indices == np.arange(start, stop)[:, None]] = -1  # itself
        near[indices < 0] = -np.inf
        order = np.lexsort((indices, -near), axis=1)[:, :count]
        found[start:stop] = np.take_along_axis(indices, order, axis=1)
        products[start:stop] = np.take_along_axis(near, order, axis=1)
    return found, products


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise BackendError(
            "the packer 'related' searches neighbours of this many documents with faiss, which is not installed. "
            "Install it (pip install 'longlode[related]'), or raise exact_below and wait."
        ) from None
    return faiss
