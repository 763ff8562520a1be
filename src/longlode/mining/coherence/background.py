"""Frequency of words in a background corpus, for the words that two unrelated texts share by chance.

A table of words and the number of windows of 1,000 words (`WINDOW`) in which each occurs, over a corpus that is not
the one being scored. The one in the package was counted by `recipes/make_coherence.py`; it holds no word that
fewer than `LEAST` windows hold, since rarer words are treated as equally rare.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from longlode.core.errors import InputError
from longlode.corpus.words import split_words

WINDOW = 1000
"""Words of a window."""
LEAST = 4
RAREST = 1e-3
"""Smallest share that is distinguished: that of words which are not in the table."""
PACKAGED = Path(__file__).parents[2] / "assets" / "coherence" / "words.tsv"


class Background:
    """Shares of windows by word.

    shares: word -> share of windows that hold it, in (0, 1].
    """

    def __init__(self, shares: dict[str, float]) -> None:
        """Args: shares, word -> share of windows that hold it."""
        self.shares = shares

    def share(self, words: Sequence[str]) -> np.ndarray:
        """Share of the background corpus's windows that hold each word, float64 `[len(words)]`, at least RAREST."""
        found = (self.shares.get(word, RAREST) for word in words)
        return np.maximum(np.fromiter(found, dtype=np.float64, count=len(words)), RAREST)


def count_words(texts: Iterable[str]) -> tuple[Counter[str], int]:
    """Windows that hold each word, and windows in all. The ragged end of a text is a window too."""
    counts: Counter[str] = Counter()
    num_windows = 0
    for text in texts:
        words = split_words(text)
        for start in range(0, len(words), WINDOW):
            counts.update(set(words[start : start + WINDOW]))
            num_windows += 1
    return counts, num_windows


def as_background(counts: Counter[str], num_windows: int) -> Background:
    """Shares from counts, half a window added to each so that a count of few is not taken for exact."""
    return Background({w: (n + 0.5) / (num_windows + 1) for w, n in counts.items() if n >= LEAST})


def write_background(path: Path, counts: Counter[str], num_windows: int) -> None:
    """Write the table: the number of windows, then one line per word, most common first."""
    rows = sorted((-n, word) for word, n in counts.items() if n >= LEAST)
    lines = [f"{-n}\t{word}" for n, word in rows]
    path.write_text(
        "\n".join([f"{num_windows}\t(windows of {WINDOW} words)", *lines]) + "\n", encoding="utf-8"
    )


def read_background(path: Path) -> Background:
    """Read a table. Raises: InputError that names the first line without a count and a word."""
    counts: Counter[str] = Counter()
    num_windows = 0
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a table of words.") from error
    for number, line in enumerate(lines, 1):
        count, tab, word = line.partition("\t")
        if not (tab and count.isdigit()):
            raise InputError(f"{path}, line {number}: {line[:60]!r}; expected a count, a tab and a word.")
        if number == 1:
            num_windows = int(count)
        else:
            counts[word] = int(count)
    if not counts:
        raise InputError(f"{path} holds no words; expected a count, a tab and a word in every line.")
    return as_background(counts, num_windows)


@cache
def packaged_background() -> Background:
    """The table in the package, read once."""
    return read_background(PACKAGED)
