"""Signs: how layout and punctuation change along a text, and in which direction its passages follow each other.

Direction. A passage (a paragraph, a sentence) begins and ends in some way: a quotation mark, a capital, an indent; a
question mark, a colon; its length. A question is answered after it is asked. For states x, y of neighbours

    direction = sum over neighbours of D(x, y)           D(x, y) = log (N(x, y) + a) / (N(y, x) + a) = -D(y, x)

with N counted over coherent text of any language: the sum is positive in order, negative if the passages are reversed,
near 0 if they are shuffled. A word is also introduced otherwise than it is taken up: the same with the word before its
first mention and before its last one in another paragraph ("a", "import"; "the", "return").
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from longlode.mining.gate.passages import log_ratio, peaks
from longlode.mining.gate.reading import LETTER, NUM_CLASSES, SIGN, SPACE, Reading

LENGTHS = 4
_ENDS = NUM_CLASSES * NUM_CLASSES
NUM_STATES = NUM_CLASSES * 2 * _ENDS * LENGTHS
UNITS = ("paragraph", "sentence")
SMOOTHING = 3.0
MENTION_SMOOTHING = 20.0
FEWEST_PAIRS = 5
FEWEST_MENTIONS = 10
MOST_MENTIONS = 30
_CODES = np.array(
    sorted({ord(c) for c in "\n .,;:!?'\"-()[]{}=_*/\\<>#`@|&%$+~^“”‘’«»—–…。，：；？！、「」"})
)
_DIGITS, _CAPITALS = (48, 58), (65, 91)
NUM_SIGNS = len(_CODES) + 2
_BLOCKS = 128
_BLOCK_CHARACTERS = 400


@dataclass(frozen=True, eq=False)
class Directions:
    """What is known of direction.

    pairs, values: by unit the numbers x * NUM_STATES + y of pairs of states with x < y, int64 ascending, and D(x, y).
    mentions: word -> log odds that it stands before a first mention rather than a last one.
    """

    pairs: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    mentions: dict[str, float]


def direction(reading: Reading, known: Directions) -> dict[str, float]:
    """Direction of paragraphs, sentences and mentions: in standard errors, and per pair."""
    found: dict[str, float] = {}
    for unit in UNITS:
        first, second = _neighbours(reading, unit)
        low, high = np.minimum(first, second), np.maximum(first, second)
        key = low * NUM_STATES + high
        at = np.minimum(np.searchsorted(known.pairs[unit], key), max(0, len(known.pairs[unit]) - 1))
        value = np.zeros(len(key))
        if len(known.pairs[unit]):
            hit = known.pairs[unit][at] == key
            value = np.where(hit, known.values[unit][at], 0.0) * np.where(first < second, 1.0, -1.0)
        found |= _evidence(unit, value, len(key))
    before_first, before_last = _mentions(reading)
    odds = np.array([known.mentions.get(word, 0.0) for word in reading.words])
    value = np.concatenate([odds[before_first], -odds[before_last]])
    return found | _evidence("mention", value, len(before_first))


def _evidence(name: str, value: np.ndarray, number: int) -> dict[str, float]:
    total = float(value.sum())
    return {
        f"direction_{name}": total / float(np.sqrt((value**2).sum() + 1.0)),
        f"direction_{name}_mean": total / (number + 10),
    }


def _neighbours(reading: Reading, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """States of neighbouring units that differ, int64 `[m]` each."""
    starts = reading.paragraph_starts if unit == "paragraph" else reading.sentence_starts
    kind = reading.classes
    ink = np.flatnonzero(kind != SPACE)
    begin = np.searchsorted(ink, starts)
    stop = np.append(begin[1:], len(ink))
    rows = np.flatnonzero(stop > begin)
    if len(rows) < 2:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    first, last = ink[begin[rows]], ink[stop[rows] - 1]
    # Blanks and tabs between the line's begin and the first sign are an indent.
    indented = (
        (first > 0) & np.isin(reading.codes[np.maximum(first - 1, 0)], (32, 9)) & (first > starts[rows])
    )
    before = np.where(last > first, kind[np.maximum(last - 1, 0)], SPACE)
    before = np.where(before <= SIGN, SPACE, before)  # letters and digits before the last sign say nothing
    size = np.minimum(LENGTHS - 1, (np.log(last - first + 2) / 1.7).astype(np.int64))
    lead = np.where(kind[first] == SPACE, LETTER, kind[first]).astype(np.int64)
    end = before.astype(np.int64) * NUM_CLASSES + kind[last]
    state = ((lead * 2 + indented) * _ENDS + end) * LENGTHS + size
    differ = state[1:] != state[:-1]
    return state[:-1][differ], state[1:][differ]


def _mentions(reading: Reading) -> tuple[np.ndarray, np.ndarray]:
    """Types before the first and the last mention of words that come back in another paragraph, int `[m]` each."""
    seen, count = reading.seen, np.diff(reading.seen.first)
    first, last = seen.position[seen.first[:-1]], seen.position[seen.first[1:] - 1]
    place = reading.paragraph
    rows = (count >= 2) & (count <= MOST_MENTIONS) & (first > 0)
    rows &= place[first] != place[last]
    return reading.kinds[first[rows] - 1], reading.kinds[last[rows] - 1]


def learn_directions(readings: Iterable[Reading]) -> Directions:
    """Count coherent text, in its order."""
    pairs: dict[str, Counter[tuple[int, int]]] = {unit: Counter() for unit in UNITS}
    first: Counter[str] = Counter()
    last: Counter[str] = Counter()
    for reading in readings:
        for unit in UNITS:
            here, after = _neighbours(reading, unit)
            pairs[unit].update(zip(here.tolist(), after.tolist(), strict=True))
        for counter, kinds in zip((first, last), _mentions(reading), strict=True):
            counter.update(reading.words[kind] for kind in kinds.tolist())
    keys, values = {}, {}
    for unit, counts in pairs.items():
        both = {(min(pair), max(pair)) for pair in counts}
        kept = sorted(pair for pair in both if counts[pair] + counts[pair[1], pair[0]] >= FEWEST_PAIRS)
        keys[unit] = np.array([low * NUM_STATES + high for low, high in kept], dtype=np.int64)
        odds = [(counts[pair] + SMOOTHING) / (counts[pair[1], pair[0]] + SMOOTHING) for pair in kept]
        values[unit] = np.log(np.array(odds, dtype=np.float64))
    mentions = {
        word: float(np.log((first[word] + MENTION_SMOOTHING) / (last[word] + MENTION_SMOOTHING)))
        for word in sorted(set(first) | set(last))
        if first[word] + last[word] >= FEWEST_MENTIONS
    }
    return Directions(keys, values, mentions)


def to_json(known: Directions) -> dict[str, Any]:
    """As plain values."""
    return {
        "pairs": {unit: keys.tolist() for unit, keys in known.pairs.items()},
        "values": {unit: values.round(4).tolist() for unit, values in known.values.items()},
        "mentions": {word: round(value, 4) for word, value in known.mentions.items()},
    }


def from_json(found: dict[str, Any]) -> Directions:
    """The inverse of `to_json`."""
    return Directions(
        {unit: np.array(keys, dtype=np.int64) for unit, keys in found["pairs"].items()},
        {unit: np.array(values, dtype=np.float64) for unit, values in found["values"].items()},
        dict(found["mentions"]),
    )


def sign_style(reading: Reading) -> dict[str, float]:
    """How the counts of signs differ on both sides of cuts, and between blocks of characters by distance."""
    codes = reading.codes
    number = min(_BLOCKS, max(8, len(codes) // _BLOCK_CHARACTERS))
    size = max(1, len(codes) // number)
    used = codes[: number * size]
    column = np.searchsorted(_CODES, used)
    column = np.where(_CODES[np.minimum(column, len(_CODES) - 1)] == used, column, -1)
    column[(used >= _DIGITS[0]) & (used < _DIGITS[1])] = len(_CODES)
    column[(used >= _CAPITALS[0]) & (used < _CAPITALS[1])] = len(_CODES) + 1
    rows = column >= 0
    cells = (np.arange(len(used)) // size)[rows] * NUM_SIGNS + column[rows]
    counts = np.bincount(cells, minlength=number * NUM_SIGNS).reshape(number, NUM_SIGNS)
    roots = np.sqrt(counts[:, counts.sum(0) > 0])  # their variance does not depend on the mean
    found: dict[str, float] = {}
    sums, squares = (np.vstack([np.zeros(roots.shape[1]), table.cumsum(0)]) for table in (roots, roots**2))
    for name, width in {"2": 2, "8": 8, "quarter": number // 4, "third": number // 3}.items():
        cuts = np.arange(width, number - width + 1)
        if len(cuts) < 2:
            found |= {f"signs_{name}_{what}": np.nan for what in ("most", "middle", "peak")}
            continue
        left, right = (sums[cuts] - sums[cuts - width]) / width, (sums[cuts + width] - sums[cuts]) / width
        spread = (squares[cuts] - squares[cuts - width]) / width - left**2
        spread += (squares[cuts + width] - squares[cuts]) / width - right**2
        apart = (
            ((left - right) ** 2 / (np.maximum(spread, 0.0) + 0.3)).mean(1) if roots.shape[1] else cuts * 0.0
        )
        found |= peaks(f"signs_{name}", np.log(apart + 0.02))
    scaled = roots / (roots.std(0) + 0.3)
    apart_by = {
        k: float(((scaled[k:] - scaled[:-k]) ** 2).mean()) if scaled.size else np.nan
        for k in (1, 2, 3, number // 2)
    }
    found["signs_lag_1_2"] = log_ratio(apart_by[1], apart_by[2])
    found["signs_lag_1_3"] = log_ratio(apart_by[1], apart_by[3])
    found["signs_lag_1_far"] = log_ratio(apart_by[1], apart_by[number // 2])
    found["signs_noise"] = float(np.log(apart_by[1] + 0.01))
    return found
