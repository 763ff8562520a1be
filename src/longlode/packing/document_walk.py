"""A walk over a graph of similar documents that visits each once, and the documents that repeat others."""

import numpy as np


def near_duplicates(found: np.ndarray, products: np.ndarray, least: float) -> np.ndarray:
    """Return which documents repeat an earlier one that is kept, bool `[N]`.

    Args: found, int64 `[N, K]`, neighbours of each document, -1 for none; products, float32 `[N, K]`, their
      similarity; least, similarity from which on two documents are one.
    """
    rows, columns = np.nonzero((products >= least) & (found >= 0))
    one, other = rows, found[rows, columns]
    later, earlier = np.maximum(one, other), np.minimum(one, other)
    is_dropped = np.zeros(len(found), dtype=bool)
    # In order of the later document, all decisions on earlier ones have been made.
    for place in np.lexsort((earlier, later)).tolist():
        if not is_dropped[earlier[place]]:
            is_dropped[later[place]] = True
    return is_dropped


def degree_ordered_walk(found: np.ndarray, products: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Order documents so that similar ones are adjacent: each kept one once, int64 `[number of kept]`.

    From a document the walk goes to its most similar neighbour that was not visited; where there is none, it begins
    again at the document with the fewest neighbours that was not visited, as those are hard to reach from others. Two
    documents are neighbours if either is among the nearest of the other.
    Source: Shi et al. 2024, "In-context pretraining", arXiv 2310.10638, algorithm 1.
    """
    starts, ends = _edges(found, products, kept)
    first = np.searchsorted(starts, np.arange(len(found) + 1))
    degrees = np.diff(first)
    begins = np.flatnonzero(kept)
    begins = begins[np.argsort(degrees[begins], kind="stable")]
    is_free, path = kept.copy(), np.zeros(len(begins), dtype=np.int64)
    bounds, targets, number = first.tolist(), ends.tolist(), 0
    for begin in begins.tolist():
        at = begin if is_free[begin] else -1
        while at >= 0:
            path[number], is_free[at] = at, False
            number += 1
            at = next((one for one in targets[bounds[at] : bounds[at + 1]] if is_free[one]), -1)
    return path


def _edges(found: np.ndarray, products: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return every edge in both directions, once: from, ascending, and to, the most similar first; int64 `[E]`."""
    rows, columns = np.nonzero(found >= 0)
    one, other, near = rows, found[rows, columns], products[rows, columns]
    is_kept = kept[one] & kept[other]
    one, other, near = one[is_kept], other[is_kept], near[is_kept]
    starts, ends, near = np.append(one, other), np.append(other, one), np.append(near, near)
    order = np.lexsort((ends, -near, starts))
    starts, ends = starts[order], ends[order]
    is_first = np.append(True, (starts[1:] != starts[:-1]) | (ends[1:] != ends[:-1]))
    return starts[is_first], ends[is_first]
