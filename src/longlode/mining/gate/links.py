"""Links: words that occur on both sides of a cut. A single document reuses its words and names beyond every cut.

If its places were random, a word of m occurrences would be on both sides of a cut at share p of the text with chance
1 - p^m - (1 - p)^m. Over all words that return

    link(p) = log (words on both sides / sum of their chances)

is about as low at every cut of a text with topics, and lowest where two texts were glued. The shape of the
passages is measured as well: a paragraph that begins in the middle of a sentence was cut out.
"""

import numpy as np

from longlode.mining.gate.medians import median
from longlode.mining.gate.parsed_text import CAPITAL, COMMA, LETTER, OPENING, QUOTE, SPACE, ParsedText

NUM_CUTS = 96
MARGIN = 0.06
"""Share of the text at either end where no cut is tried."""
COUNTS = {"few": (2, 3), "some": (4, 12), "many": (13, 80)}
FEWEST_TYPES = 12
_SMALL = 2e-3
_CUTS = np.linspace(MARGIN, 1 - MARGIN, NUM_CUTS)
_TIMES = np.arange(max(most for _, most in COUNTS.values()) + 1)[:, None]
_CHANCES = 1 - _CUTS**_TIMES - (1 - _CUTS) ** _TIMES
"""Chance that a word of each number of occurrences is on both sides of each cut, `[number, NUM_CUTS]`."""


def links(parsed: ParsedText, names: np.ndarray) -> dict[str, float]:
    """The lowest links of a text, for words by count and for names.

    Args: names bool `[types]`, types that are mostly written with a capital.
    """
    seen, n = parsed.seen, max(1, parsed.num_words)
    first, last = seen.position[seen.first[:-1]], seen.position[seen.first[1:] - 1]
    kind = parsed.kinds[first]
    count = np.diff(seen.first)
    found: dict[str, float] = {}
    groups = {label: (count >= low) & (count <= high) for label, (low, high) in COUNTS.items()}
    groups["names"] = names[kind] & (count >= 3) & (count <= COUNTS["many"][1])
    for label, rows in groups.items():
        rows = rows & ~parsed.is_number[kind]
        found |= _lowest(f"link_{label}", _linked(first[rows], last[rows], count[rows], n), rows.sum())
    return found | _broken(parsed)


def _linked(first: np.ndarray, last: np.ndarray, count: np.ndarray, n: int) -> np.ndarray:
    """Link at each cut, float64."""
    at = _CUTS * n
    both = np.searchsorted(np.sort(first), at) - np.searchsorted(np.sort(last), at)
    number = np.bincount(count)
    times = np.flatnonzero(number)
    expected = number[times] @ _CHANCES[times] if len(times) else np.zeros(NUM_CUTS)
    found: np.ndarray = np.log((both + 2.0) / (expected + 2.0))
    return found


def _lowest(name: str, link: np.ndarray, number: int) -> dict[str, float]:
    """Least value, median, and the deviation of the one from the other, also of the middle third alone."""
    if number < FEWEST_TYPES:
        return {f"{name}_{what}": np.nan for what in ("least", "middle", "peak", "half")}
    middle, inner = median(link), link[NUM_CUTS // 3 : NUM_CUTS - NUM_CUTS // 3]
    return {
        f"{name}_least": float(link.min()),
        f"{name}_middle": middle,
        f"{name}_peak": float(link.min() - middle) / (float(link.std()) + 0.02),
        f"{name}_half": float(inner.min()) - middle,
    }


def _broken(parsed: ParsedText) -> dict[str, float]:
    """Paragraphs that begin in the middle of a sentence; lines that are rows of values."""
    kind, ink = parsed.classes, parsed.ink
    found = {}
    first, last = _ends(ink, parsed.paragraph_starts)
    goes_on = (kind[last[:-1]] == LETTER) | (kind[last[:-1]] == CAPITAL) | (kind[last[:-1]] == COMMA)
    broken = np.count_nonzero(goes_on & (kind[first[1:]] == LETTER))
    found["broken"] = float(np.log((broken + 0.1) / (len(first) + 10)))
    first, last = _ends(ink, np.append(0, np.flatnonzero(parsed.codes == ord("\n")) + 1))
    number = max(1, len(first))
    rows = (kind[first] == QUOTE) | (kind[first] == OPENING)
    found["lines_quoted"] = float(np.log(np.count_nonzero(rows) / number + _SMALL))
    found["lines_comma"] = float(np.log(np.count_nonzero(kind[last] == COMMA) / number + _SMALL))
    found["quotes"] = float(np.log(np.mean(kind == QUOTE) + _SMALL)) if len(kind) else np.log(_SMALL)
    found["spaces"] = float(np.log(np.mean(kind == SPACE) + _SMALL)) if len(kind) else np.log(_SMALL)
    return found


def _ends(ink: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last sign of the passages that begin at `starts` and are not blank."""
    row = np.append(np.searchsorted(ink, starts), len(ink))
    rows = np.flatnonzero(row[1:] > row[:-1])
    return ink[row[rows]], ink[row[rows + 1] - 1]
