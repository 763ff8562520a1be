"""Signs: changes of layout and punctuation along a text."""

import numpy as np

from longlode.mining.gate.parsed_text import ParsedText
from longlode.mining.gate.passages import log_ratio, peaks

_CODES = np.array(
    sorted({ord(c) for c in "\n .,;:!?'\"-()[]{}=_*/\\<>#`@|&%$+~^“”‘’«»—–…。，：；？！、「」"})
)
_DIGITS, _CAPITALS = (48, 58), (65, 91)
NUM_SIGNS = len(_CODES) + 2
_OTHER = NUM_SIGNS
"""Column of all other characters, which is dropped."""
_BLOCKS = 128
_BLOCK_CHARACTERS = 400


def _column_table() -> np.ndarray:
    """Column of each character of the basic plane; the last entry stands for all beyond."""
    table = np.full(1 << 16, _OTHER, dtype=np.int64)
    table[_CODES] = np.arange(len(_CODES))
    table[slice(*_DIGITS)] = len(_CODES)
    table[slice(*_CAPITALS)] = len(_CODES) + 1
    return table


_COLUMNS = _column_table()


def sign_style(parsed: ParsedText) -> dict[str, float]:
    """Differences in counts of signs between the two sides of cuts, and between blocks of characters by distance."""
    codes = parsed.codes
    number = min(_BLOCKS, max(8, len(codes) // _BLOCK_CHARACTERS))
    size = max(1, len(codes) // number)
    used = codes[: number * size]
    cells = _COLUMNS.take(used, mode="clip")
    cells += np.repeat(np.arange(number) * (NUM_SIGNS + 1), size)[: len(used)]
    counts = np.bincount(cells, minlength=number * (NUM_SIGNS + 1)).reshape(number, -1)[:, :NUM_SIGNS]
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
