"""Confidence intervals of means over examples, all 95 %. And what rests on them."""

from collections.abc import Sequence

import numpy as np

_Z = 1.959963984540054  # the normal distribution's 97.5 % point
_BLOCK = 100  # resamples drawn at a time, to bound memory
_EXACT_GROUPS = 13  # 8,192 ways to flip them


def wilson(num_hits: float, num: int) -> tuple[float, float]:
    """Interval of a share: `num_hits` of `num` independent yes or no answers.

    Never leaves [0, 1] and is honest at 0 of n and n of n. Raises: ValueError when num is 0.
    Source: Wilson 1927, the score interval.
    """
    if num <= 0:
        raise ValueError(f"a share of {num} answers has no interval; give at least one answer.")
    share = num_hits / num
    spread = _Z * np.sqrt(share * (1 - share) / num + _Z**2 / (4 * num**2))
    centre = share + _Z**2 / (2 * num)
    scale = 1 + _Z**2 / num
    return float(max(0.0, (centre - spread) / scale)), float(min(1.0, (centre + spread) / scale))


def bootstrap_mean(
    values: Sequence[float] | np.ndarray,
    *,
    weights: Sequence[float] | np.ndarray | None = None,
    groups: Sequence[object] | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float | None, float | None]:
    """Weighted mean and its percentile bootstrap interval.

    Args:
      values, weights: [n]; weights default to 1.
      groups: [n], values of one group (e.g. windows of one document) are drawn together, since they are not
        independent; default: every value alone.
    Returns: mean, low, high; low and high are None when there are fewer than two groups.
    Source: Efron 1979; cluster bootstrap, Davison & Hinkley 1997, section 3.8.
    """
    x = np.asarray(values, dtype=np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)
    names = list(range(len(x))) if groups is None else list(groups)
    first: dict[object, int] = {}
    index = np.asarray([first.setdefault(name, len(first)) for name in names], dtype=np.int64)
    sums, totals = np.bincount(index, weights=w * x), np.bincount(index, weights=w)
    mean = float(sums.sum() / totals.sum())
    if len(first) < 2:
        return mean, None, None
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, num_resamples, _BLOCK):
        drawn = rng.integers(0, len(first), size=(min(_BLOCK, num_resamples - start), len(first)))
        means.append(sums[drawn].sum(1) / totals[drawn].sum(1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return mean, float(low), float(high)


def sign_flip_p(
    values: Sequence[float] | np.ndarray,
    *,
    weights: Sequence[float] | np.ndarray | None = None,
    groups: Sequence[object] | None = None,
    num_flips: int = 9999,
    seed: int = 0,
) -> float | None:
    """Two-sided p-value of paired differences by flipping signs: were A and B exchangeable, each sign were as likely.

    All values of one group flip together. Up to 13 groups every one of the flips is counted (exact), above that
    `num_flips` random ones, the observed one included, so that p is never 0.
    Args: as of `bootstrap_mean`.   Returns: None with fewer than two groups.
    Source: Fisher 1935; Phipson & Smyth 2010 for the count of the observed one.
    """
    x = np.asarray(values, dtype=np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)
    names = list(range(len(x))) if groups is None else list(groups)
    first: dict[object, int] = {}
    index = np.asarray([first.setdefault(name, len(first)) for name in names], dtype=np.int64)
    sums = np.bincount(index, weights=w * x)
    if len(sums) < 2:
        return None
    # Sums of the same numbers in another order differ in their last bits, which must not break ties.
    least = abs(float(sums.sum())) - 1e-9 * float(np.abs(sums).sum())
    if len(sums) <= _EXACT_GROUPS:
        signs = 1 - 2 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)
        return float((np.abs(signs @ sums) >= least).mean())
    rng = np.random.default_rng(seed)
    hits = 1
    for start in range(0, num_flips, _BLOCK):
        signs = rng.choice([-1.0, 1.0], size=(min(_BLOCK, num_flips - start), len(sums)))
        hits += int((np.abs(signs @ sums) >= least).sum())
    return hits / (num_flips + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number by Holm's step-down rule, in the same order.

    Below .05 for one of them at most once in 20 families where nothing differs, whatever depends on whatever.
    Source: Holm 1979.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    running = 0.0
    for rank, place in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = running
    return adjusted.tolist()


def context_used(
    losses: np.ndarray, contexts: Sequence[int], groups: Sequence[object] | None = None
) -> int | None:
    """The distance beyond which more context adds less than its interval.

    The shortest context that no longer one beats: the gain of each longer one, paired by row, has a 95 % interval
    (mean and 1.96 standard errors over groups) that reaches 0 or below. The longest context, when it beats all others,
    means "at least so much". Every pair is tested, so that of ten models that use nothing a few show an octave or two.

    Args:
      losses: `[rows, len(contexts)]`, nats per token.
      contexts: tokens of context, ascending.
      groups: of each row what it belongs to (its document); rows of one are averaged first. Default: every row alone.
    Returns: one of `contexts`; None with fewer than two groups, which have no interval.
    """
    names = list(range(len(losses))) if groups is None else list(groups)
    first: dict[object, int] = {}
    place = np.array([first.setdefault(name, len(first)) for name in names], dtype=np.int64)
    if len(first) < 2:
        return None
    sizes = np.bincount(place)
    means = np.stack([np.bincount(place, weights=column) / sizes for column in np.asarray(losses).T], axis=1)
    for shorter, context in enumerate(contexts):
        gains = means[:, [shorter]] - means[:, shorter + 1 :]
        error = gains.std(0, ddof=1) / len(gains) ** 0.5
        if not (gains.mean(0) > _Z * error).any():
            return int(context)
    raise AssertionError("the longest context has none longer that could beat it")


def bootstrap_crossed(
    values: np.ndarray, groups: Sequence[object], *, num_resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean and 95 % percentile bootstrap interval where every run has measured the same groups.

    Runs and groups are drawn anew at once, each with all of its values: neither the runs of one group nor the groups of
    one run are independent.
    Args:
      values: `[runs, rows]`, such as seeds by windows.
      groups: of each row what it belongs to (its document); the rows of a group are averaged first.
    Returns: mean over runs and groups, low, high.
    Source: Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1, 386-411.
    """
    names = list(dict.fromkeys(groups))
    place = np.array([names.index(name) for name in groups])
    cells = np.stack([values[:, place == number].mean(1) for number in range(len(names))], axis=1)
    rng = np.random.default_rng(seed)
    means = [
        cells[rng.integers(len(cells), size=len(cells))][:, rng.integers(len(names), size=len(names))].mean()
        for _ in range(num_resamples)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(cells.mean()), float(low), float(high)
