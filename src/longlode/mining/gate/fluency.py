"""Local fluency and vocabulary, which random words ("salad"), lists and machine output lack.

Neighbouring words occur as neighbours again; in salad no more often than words a few places apart. So pairs at
distance 1, 2 and 3 are compared with pairs at 5, 8, 12 and 40 by how many are repeated: the text is its own control.
"""

import numpy as np

from longlode.mining.coherence.order import stable_order
from longlode.mining.gate.parsed_text import DIGIT, LETTER, ParsedText

GAPS = (1, 2, 3, 5, 8, 12, 40)
CONTRASTS = ((1, 2), (1, 3), (1, 8), (1, 40), (2, 5), (2, 40), (3, 8), (3, 40), (12, 40))
PAGE_WORDS = 300
LONG_WORD = 14
_SMALL = 1e-3


def fluency(parsed: ParsedText) -> dict[str, float]:
    """Repeated pairs by distance, repeated triples, and words right after themselves."""
    kinds, n = parsed.kinds, parsed.num_words
    sorted_pairs = {gap: _pairs(parsed, kinds, gap) for gap in GAPS}
    repeated = {gap: _share(again, n - gap) + _SMALL for gap, (_, again) in sorted_pairs.items()}
    found = {f"pairs_{a}_{b}": float(np.log(repeated[a] / repeated[b])) for a, b in CONTRASTS}
    found["pairs_1"] = float(np.log(repeated[1]))
    # A triple is a word right after a pair of neighbours, which is numbered here.
    places, again = sorted_pairs[1]
    neighbours = np.empty_like(places)
    neighbours[places] = np.cumsum(~again)
    found["triples"] = float(np.log(_share(_pairs(parsed, neighbours, 1)[1], n - 2) + _SMALL))
    for gap in (1, 2, 3):
        same = np.mean(kinds[gap:] == kinds[:-gap]) if n > gap else 0.0
        found[f"same_{gap}"] = float(np.log(same + _SMALL))
    return found


def _pairs(parsed: ParsedText, labels: np.ndarray, gap: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of words, sorted by type and by the label that stands `gap` places before; True where both repeat.

    Args: labels int `[n]`, >= 0, of each word. Returns: int and bool, `[n]` each.
    """
    # The first words have no label before them: they get numbers of their own, which never repeat.
    own = labels.max(initial=0) + 1 + np.arange(gap, dtype=labels.dtype)
    by_type = parsed.seen.position
    label = np.append(own, labels)[: len(labels)].take(by_type)
    order = stable_order(label)
    places = by_type.take(order)
    kind, label = parsed.kinds.take(places), label.take(order)
    again = np.zeros(len(places), dtype=bool)
    again[1:] = (label[1:] == label[:-1]) & (kind[1:] == kind[:-1])
    return places, again


def _share(again: np.ndarray, number: int) -> float:
    return float(np.count_nonzero(again)) / max(1, number)


def vocabulary(parsed: ParsedText) -> dict[str, float]:
    """Shares of numbers, letters and long words; richness; lines."""
    n, counts = max(1, parsed.num_words), parsed.counts
    lengths = parsed.word_lengths.astype(np.float64)
    ordered = np.sort(counts)[::-1]
    letters = (parsed.classes >= LETTER) & (parsed.classes < DIGIT)
    found = {
        "numbers": float(counts[parsed.is_number].sum() / n),
        "characters": float(np.log(max(1, len(parsed.codes)) / n)),
        "word_length": float((lengths * counts).sum() / n),
        "long_words": float(np.log(counts[lengths > LONG_WORD].sum() / n + _SMALL)),
        "letters": float(letters.mean()) if len(letters) else 0.0,
        "once": float(np.mean(counts == 1)) if len(counts) else 0.0,
        "types": float(np.log(max(1, len(counts)) / n)),
        "top_1": float(ordered[:1].sum() / n),
        "top_10": float(ordered[:10].sum() / n),
        "top_100": float(ordered[:100].sum() / n),
        "capitals": _capitals(parsed),
        "page_types": _page_types(parsed.kinds),
    }
    return found | _lines(parsed)


def _capitals(parsed: ParsedText) -> float:
    capital = parsed.classes[parsed.starts] == LETTER + 1
    return float(np.log((capital.mean() if len(capital) else 0.0) + _SMALL))


def _page_types(kinds: np.ndarray) -> float:
    size = max(1, min(PAGE_WORDS, len(kinds)))
    pages = np.sort(kinds[: len(kinds) // size * size].reshape(-1, size), axis=1)
    return (
        float(np.mean(1 + np.count_nonzero(pages[:, 1:] != pages[:, :-1], axis=1))) / size
        if len(pages)
        else 0.0
    )


def _lines(parsed: ParsedText) -> dict[str, float]:
    """Repeated lines, and the variation of their lengths; blank lines left out."""
    lines = [line for line in map(str.strip, parsed.text.split("\n")) if line]
    sizes = np.array(list(map(len, lines)) or [1], dtype=np.float64)
    return {
        "lines_repeated": 1 - len(set(lines)) / max(1, len(lines)),
        "lines_vary": float(np.log(sizes.std() / sizes.mean() + 0.05)),
        "line_length": float(np.log(sizes.mean())),
    }
