"""Returns of words: hazards of return by distance, for classes of words, and the spans of words.

    hazard(a, b) = log (returns first seen between a and b words back / those expected)

for occurrences whose word is not in the `a` words before; expected if the word's other occurrences were at random
places. Shuffled text gives 0 at every distance, coherent text a slope, spliced text a step where its pieces end,
interleaved text a dip, and text whose names change a step in the names alone. The document's own rates are the control,
so no table of a language is needed.
"""

import itertools
from collections.abc import Iterable

import numpy as np

from longlode.mining.gate.parsed_text import CAPITAL, ParsedText

EDGES = (1, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
COUNTS = {"rare": (2, 6), "mid": (7, 24), "common": (25, 1 << 60)}
NAME_EDGES = ((64, 256), (256, 1024), (1024, 4096))
NAME_MOST = 60
SPAN_COUNTS = {"2": (2, 2), "3": (3, 4), "5": (5, 9), "10": (10, 99)}
_PRIOR = 3.0
_NEVER = 1 << 30


def returns(parsed: ParsedText) -> dict[str, float]:
    """Hazards of rare, mid and common words, of names and other words, and spans of both."""
    seen, n = parsed.seen, parsed.num_words
    kind = parsed.kinds[seen.position]
    count = parsed.counts[kind]
    gap = np.where(seen.previous >= 0, seen.position - seen.previous, _NEVER)
    found: dict[str, float] = {}

    def hazards(label: str, chosen: np.ndarray, edges: Iterable[tuple[int, int]]) -> None:
        rows = np.flatnonzero(chosen)
        of_class = gap[rows], count[rows], seen.position[rows]
        found.update({f"hazard_{label}_{near}": _hazard(n, *of_class, near, far) for near, far in edges})

    no_number = ~parsed.is_number[kind]
    for label, (least, most) in COUNTS.items():
        hazards(label, (count >= least) & (count <= most) & no_number, itertools.pairwise(EDGES))
    names = written_as_names(parsed)
    some = (count >= 2) & (count <= NAME_MOST)
    hazards("name", names[kind] & some, NAME_EDGES)
    hazards("other", ~names[kind] & some, NAME_EDGES)
    return found | _spans(parsed, names)


def _hazard(n: int, gap: np.ndarray, count: np.ndarray, position: np.ndarray, near: int, far: int) -> float:
    """Hazard of the occurrences of a class. Args: n, words of the text; the others int `[m]`, by occurrence."""
    if far > n // 2:
        return np.nan
    risk = (gap >= near) & (position >= far)
    hits = np.count_nonzero(risk & (gap < far))
    chance = -np.expm1(np.arange(-1, count.max(initial=0)) * np.log1p(-(far - near) / (n - near)))  # by count
    expected = chance.take(count.take(np.flatnonzero(risk))).sum()
    return float(np.log((hits + _PRIOR) / (expected + _PRIOR)))


def written_as_names(parsed: ParsedText) -> np.ndarray:
    """Types that are mostly written with a capital, bool `[types]`."""
    capital = parsed.classes[parsed.starts] == CAPITAL
    capitals = np.bincount(parsed.kinds, weights=capital, minlength=len(parsed.words))
    named: np.ndarray = (capitals > 0.8 * parsed.counts) & (parsed.counts >= 2)
    return named


def _spans(parsed: ParsedText, names: np.ndarray) -> dict[str, float]:
    """Share of the document between first and last occurrence, minus that of random places."""
    seen, n = parsed.seen, parsed.num_words
    first, last = seen.position[seen.first[:-1]], seen.position[seen.first[1:] - 1]
    kind = parsed.kinds[first]
    count, name = parsed.counts[kind], names[kind]
    span = (last - first) / max(1, n) - (count - 1) / (count + 1)
    found = {}
    for label, (least, most) in SPAN_COUNTS.items():
        chosen = (count >= least) & (count <= most)
        for of_names, suffix in ((True, "name"), (False, "other")):
            rows = chosen & (name == of_names)
            found[f"span_{label}_{suffix}"] = float(span[rows].mean()) if rows.sum() >= 4 else np.nan
        found[f"names_{label}"] = float(np.log((np.sum(chosen & name) + 1) / (np.sum(chosen) + 5)))
    return found
