"""Cuts of a step's batch: the shares of data ranks, and the parts that a rank holds in memory at once."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from longlode.core.batch import Batch

_IGNORED = -100


def micro_batches(batch: Batch, rows: int, length: int) -> Iterator[Batch]:
    """Cut a batch into parts of at most rows * length tokens, or of one row; parts without labels are skipped.

    A packed batch is cut at document boundaries, into parts of at most as many tokens, or of one document.
    """
    if batch.cu_seqlens is None:
        fitting = max(1, rows * length // batch.tokens.shape[1])
        starts = range(0, len(batch.tokens), fitting)
        parts = [_rows(batch, start, start + fitting) for start in starts]
    else:
        parts = []
        edges = batch.cu_seqlens
        first = 0
        while first < len(edges) - 1:
            fitting = int(np.searchsorted(edges, edges[first] + rows * length, side="right")) - 1
            last = max(first + 1, fitting)
            parts.append(_documents(batch, first, last))
            first = last
    return (part for part in parts if part.num_tokens)


def parts_of_rank(
    batch: Batch, rows: int, length: int, data_rank: int = 0, data_ranks: int = 1
) -> list[Batch]:
    """Return the parts of a batch that one data rank reads: its share, cut as by `micro_batches`.

    Every rank gets as many parts as the rank that needs most, so that all ranks run the model equally often and
    exchange in step (FSDP gathers weights in every pass); what is missing is filled up by `filling`.
    """
    if data_ranks == 1:
        return list(micro_batches(batch, rows, length))
    parts = [
        [] if share is None else list(micro_batches(share, rows, length))
        for share in shares(batch, data_ranks)
    ]
    most = max(map(len, parts))
    own = parts[data_rank]
    return own + [filling(batch)] * (most - len(own))


def shares(batch: Batch, num_ranks: int) -> list[Batch | None]:
    """Cut a batch into contiguous shares of about as many tokens each; None for a rank that gets nothing.

    Rows stay whole, and so do the documents of a packed batch: its cuts are the boundaries nearest to equal shares.
    """
    if batch.cu_seqlens is None:
        edges = np.arange(len(batch.tokens) + 1) * batch.tokens.shape[1]
    else:
        edges = batch.cu_seqlens.astype(np.int64)
    cut = _rows if batch.cu_seqlens is None else _documents
    wanted = edges[-1] * np.arange(num_ranks + 1) / num_ranks
    cuts = np.abs(edges[None] - wanted[:, None]).argmin(1).tolist()
    return [cut(batch, start, end) if end > start else None for start, end in itertools.pairwise(cuts)]


def _rows(batch: Batch, start: int, end: int) -> Batch:
    weights = None if batch.weights is None else batch.weights[start:end]
    return replace(batch, tokens=batch.tokens[start:end], labels=batch.labels[start:end], weights=weights)


def _documents(batch: Batch, first: int, last: int) -> Batch:
    """Return documents first <= n < last of a packed batch."""
    edges = batch.cu_seqlens
    assert edges is not None, "only packed batches have documents"
    span = slice(int(edges[first]), int(edges[last]))
    return replace(
        batch,
        tokens=batch.tokens[:, span],
        labels=batch.labels[:, span],
        cu_seqlens=(edges[first : last + 1] - edges[first]).astype(np.int32),
        weights=None if batch.weights is None else batch.weights[:, span],
    )


def documents_of(batch: Batch, places: Sequence[int]) -> Batch:
    """Return the documents of a packed batch at these places, in this order, or its rows."""
    edges = batch.cu_seqlens
    if edges is None:
        rows = list(places)
        weights = None if batch.weights is None else batch.weights[rows]
        return replace(batch, tokens=batch.tokens[rows], labels=batch.labels[rows], weights=weights)
    index = np.concatenate([np.arange(edges[place], edges[place + 1]) for place in places])
    lengths = [int(edges[place + 1] - edges[place]) for place in places]
    return replace(
        batch,
        tokens=batch.tokens[:, index],
        labels=batch.labels[:, index],
        cu_seqlens=np.concatenate(([0], np.cumsum(lengths))).astype(np.int32),
        weights=None if batch.weights is None else batch.weights[:, index],
    )


def filling(batch: Batch) -> Batch:
    """Return the shortest row or document without labels, for a rank that has nothing else to read."""
    place = 0 if batch.cu_seqlens is None else int(np.diff(batch.cu_seqlens).argmin())
    part = documents_of(batch, [place])
    return replace(part, labels=np.full_like(part.labels, _IGNORED))
