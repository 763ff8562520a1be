"""Similarity of passages by distance: boundaries, alternation, and changes of author.

The words are cut into at most NUM_BLOCKS blocks. Two blocks are similar by the weight of the words that both hold,
w = log(blocks / blocks that hold the word)^2, none for words in more than a quarter of the blocks:

    S_ij = sum of w over shared words / sqrt(that of i  that of j)

Its mean over pairs k apart falls with k in coherent text, and rises from 1 to 2 where two texts alternate. Around a
cut, blocks left and right of it are compared with pairs equally far apart elsewhere. The same is measured for
paragraphs, and for the counts of the commonest words, which distinguish authors.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from longlode.mining.gate.medians import median, middle_of, quantile_of
from longlode.mining.gate.parsed_text import ParsedText

NUM_BLOCKS = 128
LEAST_BLOCK_WORDS = 40
COMMON_SHARE = 0.25
NUM_COMMON = 60
LAGS = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 8), (9, 13), (14, 20), (21, 32), (33, 50), (51, 80))
PARAGRAPH_LAGS = 8
FEWEST_PARAGRAPHS = 16
MOST_PARAGRAPHS = 4000
_SMALL = 2e-3


def passages(parsed: ParsedText) -> dict[str, float]:
    """Features of blocks and paragraphs; NaN where there are too few."""
    n = parsed.num_words
    size = block_words(n)
    number = max(1, n // size)
    block = np.minimum(np.arange(n) // size, number)
    alike = _similarity(parsed, block, number)
    means, pairs = _by_lag(alike)
    usual = _expected(means, pairs)
    return (
        _lags(means, pairs)
        | _cuts(alike, usual)
        | _texture(alike, usual)
        | _style(parsed, block, number)
        | _paragraphs(parsed)
    )


def block_words(num_words: int) -> int:
    """Words per block."""
    return max(LEAST_BLOCK_WORDS, num_words // NUM_BLOCKS)


def _holdings(
    parsed: ParsedText, place: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Occurrences of words in `number` places, sorted by word.

    Returns: place int, number of rows of the same word that follow int, weight of the word float; `[m]` each.
    """
    # Places do not fall along the text, so occurrences by type and position are sorted by type and place as well.
    at = parsed.seen.position
    kind, where = parsed.kinds[at], place[at]
    kept = ~parsed.is_number[kind] & (where < number)
    kept[1:] &= (kind[1:] != kind[:-1]) | (where[1:] != where[:-1])
    kind, where = kind[kept], where[kept]
    first = np.flatnonzero(np.append(True, kind[1:] != kind[:-1])) if len(kind) else np.zeros(0, dtype=int)
    count = np.diff(np.append(first, len(kind)))
    weight = np.where(
        count <= max(1.0, COMMON_SHARE * number), np.log(number / np.maximum(count, 1)) ** 2, 0.0
    )
    left = np.repeat(first + count, count) - np.arange(len(kind)) - 1
    return where, left, np.repeat(weight, count)


def _similarity(parsed: ParsedText, block: np.ndarray, number: int) -> np.ndarray:
    """The similarities S, float64 `[number, number]`."""
    where, left, weight = _holdings(parsed, block, number)
    norm = np.bincount(where, weights=weight, minlength=number)
    table = np.zeros(number * number)
    rows = np.flatnonzero((left > 0) & (weight > 0))
    for step in range(1, int(left[rows].max(initial=0)) + 1):
        rows = rows[left[rows] >= step]
        cell = where[rows] * number + where[rows + step]
        table += np.bincount(cell, weights=weight[rows], minlength=number * number)
    alike = table.reshape(number, number)
    scale = np.sqrt(norm[:, None] * norm[None]) + 1e-9
    shared: np.ndarray = (alike + alike.T) / scale
    return shared


def _by_lag(alike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of S over pairs k apart, 0 for k = 0, and the number of pairs."""
    pairs = len(alike) - np.arange(len(alike))
    sums = _run_sums(alike.ravel(), *_diagonals(len(alike)))
    return np.append(0.0, sums / pairs[1:]), pairs


def _lags(means: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    number = len(means)
    weighed = means * pairs
    mean = float(weighed[1:].sum() / pairs[1:].sum()) if number > 1 else 0.0
    found = {"alike": float(np.log(mean + 1e-3))}
    for low, high in LAGS:
        name = f"alike_lag_{low}"
        found[name] = np.nan
        if high < 0.7 * number:
            here = weighed[low : high + 1].sum() / pairs[low : high + 1].sum()
            found[name] = float(np.log((here + _SMALL) / (mean + _SMALL)))
    return found


def _expected(means: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Expected S of each pair, from pairs equally far apart, smoothed over distances, `[number, number]`.

    Args: of `_by_lag`.
    """
    number = len(means)
    windows = _windows(number)
    smooth = means.copy()
    smooth[4:] = _run_sums(means * pairs, *windows) / _run_sums(pairs, *windows)
    distance = np.abs(np.subtract.outer(np.arange(number), np.arange(number)))
    table: np.ndarray = smooth[distance] + _SMALL
    return table


def _run_sums(values: np.ndarray, places: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sum of each run of values. Args: int, of `_runs`."""
    # Each run begins with a 0, as a sum of its own would: so the bits are those of `np.sum`.
    return np.add.reduceat(np.append(values, 0).take(places), starts) if len(starts) else np.zeros(0)


def _runs(runs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Runs of places, each after a -1, end to end; and where each begins."""
    starts = np.cumsum([0, *(1 + len(run) for run in runs)])[:-1]
    return np.concatenate([np.zeros(0, int), *(np.append(-1, run) for run in runs)]), starts


@cache
def _diagonals(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of the diagonals 1 to number - 1 of a flat square table."""
    return _runs([np.arange(number - k) * (number + 1) + k for k in range(1, number)])


@cache
def _windows(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of the distances within a quarter of each distance, from 4 on."""
    return _runs(
        [np.arange(max(1, k - max(1, k // 4)), min(number, k + max(1, k // 4) + 1)) for k in range(4, number)]
    )


def _widths(number: int) -> dict[str, int]:
    return {"2": 2, "4": 4, "8": 8, "eighth": number // 8, "quarter": number // 4, "third": number // 3}


def _cuts(alike: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Quantiles over cuts of log (blocks across the cut / as far apart elsewhere), for several widths."""
    number = len(alike)
    sums = [_integral(alike), _integral(expected)]
    found: dict[str, float] = {}
    for name, width in _widths(number).items():
        cuts = np.arange(width, number - width + 1)
        if len(cuts) < 4 or width < 1:
            found |= {f"cut_{name}_{what}": np.nan for what in ("least", "low", "spread", "peak")}
            continue
        across, usual = (
            s[cuts, cuts + width] - s[cuts - width, cuts + width] - s[cuts, cuts] + s[cuts - width, cuts]
            for s in sums
        )
        ratio = np.log((across + 0.02 * width) / (usual + 0.02 * width))
        ordered = np.sort(ratio)
        middle, low = middle_of(ordered), quantile_of(ordered, 0.1)
        found[f"cut_{name}_least"] = float(ordered[0])
        found[f"cut_{name}_low"] = low
        found[f"cut_{name}_spread"] = middle - low
        found[f"cut_{name}_peak"] = (float(ordered[0]) - middle) / (float(ratio.std()) + 0.02)
    return found


def _integral(table: np.ndarray) -> np.ndarray:
    summed = np.zeros((len(table) + 1, len(table) + 1))
    summed[1:, 1:] = table.cumsum(0).cumsum(1)
    return summed


def _texture(alike: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """The two strongest divisions of the blocks: their strength, and the number of changes along the text."""
    number = len(alike)
    if number < 8:
        return {name: np.nan for k in "12" for name in (f"division_{k}", f"changes_{k}", f"smooth_{k}")}
    table = (alike + _SMALL) / expected - 1
    np.fill_diagonal(table, 0.0)
    values, vectors = np.linalg.eigh((table + table.T) / 2)
    found: dict[str, float] = {}
    for k in (1, 2):
        vector = vectors[:, -k]
        found[f"division_{k}"] = float(values[-k] / (np.sqrt((table**2).sum()) + 1e-9))
        changes = np.count_nonzero(vector[1:] * vector[:-1] < 0)
        found[f"changes_{k}"] = float(np.log((1 + changes) / number))
        found[f"smooth_{k}"] = float((vector[1:] * vector[:-1]).sum())
    return found


def _style(parsed: ParsedText, block: np.ndarray, number: int) -> dict[str, float]:
    """Chi-square distance of the commonest words' counts on both sides of each cut, and of blocks by distance."""
    column = np.full(len(parsed.words), -1)
    common = np.argsort(-parsed.counts, kind="stable")[:NUM_COMMON]
    column[common] = np.arange(len(common))
    kind = column[parsed.kinds]
    rows = (kind >= 0) & (block < number)
    cells = block[rows] * NUM_COMMON + kind[rows]
    counts = np.bincount(cells, minlength=number * NUM_COMMON).reshape(number, NUM_COMMON)
    summed = np.vstack([np.zeros(NUM_COMMON), counts.cumsum(0)])
    found: dict[str, float] = {}
    for name, width in _widths(number).items():
        if name == "4":
            continue
        cuts = np.arange(width, number - width + 1)
        if len(cuts) < 2 or width < 1:
            found |= {f"style_{name}_{what}": np.nan for what in ("most", "middle", "peak")}
            continue
        left, right = summed[cuts] - summed[cuts - width], summed[cuts + width] - summed[cuts]
        found |= peaks(f"style_{name}", np.log(_chi_square(left, right) + 0.1))
    distance = dict.fromkeys((1, 2, 3, 8, number // 2), np.nan)
    for k in distance:
        if 0 < k < number:
            distance[k] = float(_chi_square(counts[:-k], counts[k:]).mean())
    for name, near, far in (("1_2", 1, 2), ("2_8", 2, 8), ("1_3", 1, 3), ("1_far", 1, number // 2)):
        found[f"style_lag_{name}"] = log_ratio(distance[near], distance[far])
    return found


def _chi_square(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    distance: np.ndarray = ((left - right) ** 2 / (left + right + 0.5)).sum(1) / NUM_COMMON
    return distance


def peaks(name: str, values: np.ndarray) -> dict[str, float]:
    """Greatest value and median over cuts, and the deviation of the one from the other."""
    middle = median(values)
    peak = (float(values.max()) - middle) / (float(values.std()) + 0.02)
    return {f"{name}_most": float(values.max()), f"{name}_middle": middle, f"{name}_peak": peak}


def log_ratio(first: float, second: float, small: float = 1e-6) -> float:
    """log(first / second), NaN if either is missing."""
    return float(np.log((first + small) / (second + small)))


def _paragraphs(parsed: ParsedText) -> dict[str, float]:
    """Similarity of paragraphs that are 1 to 8 apart, and of their commonest words; their lengths."""
    place = parsed.paragraph
    number = int(place.max(initial=-1)) + 1
    names = ("12", "13", "23", "24", "1_mean", "length", "lengths", "style_12", "style_13")
    found = {f"paragraph_{name}": np.nan for name in names}
    if number < FEWEST_PARAGRAPHS:
        return found
    where, left, weight = _holdings(parsed, place, number)
    scale = 1 / np.sqrt(np.bincount(where, weights=weight, minlength=number) + 1e-9)
    second = scale[where]
    first = weight * second
    sums = np.zeros(PARAGRAPH_LAGS + 1)
    rows = np.flatnonzero(left > 0)
    for step in range(1, PARAGRAPH_LAGS + 1):
        rows = rows[left[rows] >= step]
        apart = where[rows + step] - where[rows]
        near = np.flatnonzero(apart <= PARAGRAPH_LAGS)
        rows, apart = rows[near], apart[near]
        sums += np.bincount(apart, weights=first[rows] * second[rows + step], minlength=PARAGRAPH_LAGS + 1)
    means = sums[1:] / (number - np.arange(1, PARAGRAPH_LAGS + 1))
    small = 0.1 * float(means.mean()) + 1e-4
    for name, one, other in (("12", 0, 1), ("13", 0, 2), ("23", 1, 2), ("24", 1, 3)):
        found[f"paragraph_{name}"] = log_ratio(means[one], means[other], small)
    found["paragraph_1_mean"] = log_ratio(means[0], float(means[4:].mean()), small)
    sizes = np.bincount(place, minlength=number)
    found["paragraph_length"] = float(np.log(sizes.mean()))
    found["paragraph_lengths"] = float(np.log(sizes.std() / sizes.mean() + 0.05))
    if number <= MOST_PARAGRAPHS:
        found |= _paragraph_style(parsed, place, number)
    return found


def _paragraph_style(
    parsed: ParsedText, place: np.ndarray, number: int, num_common: int = 40
) -> dict[str, float]:
    column = np.full(len(parsed.words), -1)
    common = np.argsort(-parsed.counts, kind="stable")[:num_common]
    column[common] = np.arange(len(common))
    kind = column[parsed.kinds]
    rows = kind >= 0
    counts = np.bincount(place[rows] * num_common + kind[rows], minlength=number * num_common)
    table = counts.reshape(number, num_common).astype(np.float64)
    sizes = table.sum(1)
    table = np.sqrt(table[sizes >= 5] / sizes[sizes >= 5, None])
    if len(table) <= FEWEST_PARAGRAPHS:
        return {}
    apart = {k: 1 - float((table[k:] * table[:-k]).sum(1).mean()) for k in (1, 2, 3)}
    return {f"paragraph_style_1{k}": log_ratio(apart[1], apart[k], 1e-3) for k in (2, 3)}


def boundary_strengths(parsed: ParsedText) -> dict[int, np.ndarray]:
    """Ratio of what passages on both sides of every cut share to what passages equally far apart elsewhere share.

    Returns: words of a passage -> ratios, float64 `[m]`, of cuts a block of words apart: 1 is usual, 0 nothing shared.
      A cut with number k (from 0) lies behind the word `span + k * block`, block as of `block_words`. Empty for a text
      of too few words.
    """
    size = block_words(parsed.num_words)
    number = parsed.num_words // size
    if number < 8:
        return {}
    place = np.minimum(np.arange(parsed.num_words) // size, number)
    alike = _similarity(parsed, place, number)
    sums = [_integral(alike), _integral(_expected(*_by_lag(alike)))]
    found = {}
    for width in sorted({4, 8, number // 8, number // 4} - {0, 1, 2, 3}):
        cuts = np.arange(width, number - width + 1)
        if len(cuts) < 4:
            continue
        across, usual = (
            s[cuts, cuts + width] - s[cuts - width, cuts + width] - s[cuts, cuts] + s[cuts - width, cuts]
            for s in sums
        )
        found[width * size] = (across + 0.02 * width) / (usual + 0.02 * width)
    return found
