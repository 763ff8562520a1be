"""Local fluency and vocabulary, which random words ("salad"), lists and machine output lack.

Neighbouring words occur as neighbours again; in salad no more often than words a few places apart. So pairs at
distance 1, 2 and 3 are compared with pairs at 5, 8, 12 and 40 by how many are repeated: the text is its own control.
"""

from typing import Any

import numpy as np

from longlode.mining.gate.parsed_text import DIGIT, LETTER, ParsedText

GAPS = (1, 2, 3, 5, 8, 12, 40)
CONTRASTS = ((1, 2), (1, 3), (1, 8), (1, 40), (2, 5), (2, 40), (3, 8), (3, 40), (12, 40))
PAGE_WORDS = 300
LONG_WORD = 14
_SMALL = 1e-3


def fluency(parsed: ParsedText) -> dict[str, float]:
    """Repeated pairs by distance, repeated triples, and words right after themselves."""
    kinds = parsed.kinds.astype(np.int64)
    types = max(1, len(parsed.words))
    # Half the width is sorted in half the time.
    narrow: np.ndarray = kinds.astype(np.uint32 if types <= 1 << 16 else np.int64)
    scale: Any = narrow.dtype.type(types)
    repeated = {gap: _repeated(narrow[:-gap] * scale + narrow[gap:]) + _SMALL for gap in GAPS}
    found = {f"pairs_{a}_{b}": float(np.log(repeated[a] / repeated[b])) for a, b in CONTRASTS}
    found["pairs_1"] = float(np.log(repeated[1]))
    mixed = (kinds[:-2] * types + kinds[1:-1]) * 1_000_003 + kinds[2:]  # may wrap around: a hash
    found["triples"] = float(np.log(_repeated(mixed) + _SMALL))
    for gap in (1, 2, 3):
        same = np.mean(kinds[gap:] == kinds[:-gap]) if len(kinds) > gap else 0.0
        found[f"same_{gap}"] = float(np.log(same + _SMALL))
    return found


def _repeated(items: np.ndarray) -> float:
    """Share of the items that equal another one, the first of each not counted."""
    ordered = np.sort(items)
    return float(np.count_nonzero(ordered[1:] == ordered[:-1])) / max(1, len(ordered))


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
