"""The numbers of the mining benchmark: AUC and its interval, rank correlation, length bias."""

from collections.abc import Sequence

import numpy as np

from longlode.core.ranking import auc, spearman, wins

NUM_RESAMPLES = 1000


def auc_interval(
    positive: np.ndarray, groups: Sequence[str], negative: np.ndarray, seed: int
) -> tuple[float, float, float]:
    """AUC, and the 2.5 and 97.5 percentiles over resampled documents.

    Args: groups, the document that each positive is a stretch of: its stretches are drawn together.
    """
    rng = np.random.default_rng(seed)
    won = wins(positive, negative)
    names, member = np.unique(np.array(groups), return_inverse=True)
    by_group = np.zeros((len(names), len(negative)))
    np.add.at(by_group, member, won)
    sizes = np.bincount(member)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), NUM_RESAMPLES)
    others = rng.multinomial(len(negative), np.full(len(negative), 1 / len(negative)), NUM_RESAMPLES)
    values = ((drawn @ by_group) * others).sum(1) / ((drawn @ sizes) * len(negative))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(won.mean()), float(low), float(high)


def same_half(a: np.ndarray, b: np.ndarray) -> float | None:
    """Share of documents that both scores put on the same side of their median; None without documents."""
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any():
        return None
    return float(np.mean((a[both] > np.median(a[both])) == (b[both] > np.median(b[both]))))


def length_bias(scores: np.ndarray, lengths: Sequence[int]) -> dict[str, float | None]:
    """How the score moves with length alone.

    Args: scores float `[D, K]`, of the same D documents cut at K lengths (`lengths`, ascending).
    Returns: within, the rank correlation of score and length in one document, mean over documents; between, the same
      over documents of different length: each is given one of the lengths in turn, mean over the K ways to do so. 0 is
      a score that does not care; the spread between documents hides what it cares from the second number.
    """
    size = np.array(lengths, dtype=float)
    within = [value for row in scores if (value := spearman(row, size)) is not None]
    num_documents = len(scores)
    between = []
    for shift in range(len(size)):
        column = (np.arange(num_documents) + shift) % len(size)
        value = spearman(scores[np.arange(num_documents), column], size[column])
        if value is not None:
            between.append(value)
    return {
        "within": float(np.mean(within)) if within else None,
        "between": float(np.mean(between)) if between else None,
    }


def by_domain(
    scores: np.ndarray, labels: np.ndarray, domains: np.ndarray, coherent: str
) -> dict[str, dict[str, float]]:
    """AUC of the coherent documents of each domain against each negative of the same domain.

    Negatives that come in no domain of coherent documents (lists, logs, pages) are compared with every domain.
    """
    is_coherent = labels == coherent
    kinds = list(dict.fromkeys(domains[is_coherent]))
    found: dict[str, dict[str, float]] = {}
    for kind in kinds:
        positive = scores[is_coherent & (domains == kind)]
        row = {}
        for label in dict.fromkeys(labels[~is_coherent]):
            has_domain = np.isin(domains[labels == label], kinds).any()
            negative = scores[(labels == label) & ((domains == kind) if has_domain else True)]
            if len(negative):
                row[str(label)] = auc(positive, negative)
        found[str(kind)] = row
    return found


def same_kind(
    scores: np.ndarray, labels: np.ndarray, domains: np.ndarray, coherent: str
) -> dict[str, float | None]:
    """AUC of each negative over the pairs of one domain; None for negatives that share no domain."""
    found: dict[str, float | None] = {}
    is_coherent = labels == coherent
    for label in dict.fromkeys(labels[~is_coherent]):
        here = labels == label
        same = domains[is_coherent][:, None] == domains[here][None]
        won = wins(scores[is_coherent], scores[here])
        found[str(label)] = float(won[same].mean()) if same.any() else None
    return found
