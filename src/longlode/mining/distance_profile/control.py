"""Controls of the distance profile: the gain expected from a far passage of unrelated text.

`ForeignControl` uses a table of a background corpus: the share of stretches of a given length from *another* text of
the same kind that hold a word which occurs in a given number of the table's windows. That share is measured on held-out
pairs of documents, not computed from the count: a word was chosen because the document holds it, and such words are
commoner than their counts suggest (a word in no window of the table still occurs in 0.8 % of such stretches of 3,000
words).

`OwnControl` is for languages without a table: the word's other occurrences are assumed anywhere in the document. Words
that a document uses throughout then add no gain, so the profile is smaller; `name` tells which control was used.
"""

import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longlode.core.errors import InputError
from longlode.corpus.words import split_words

WINDOW = 1000
"""Words of a window of the table."""
WORD_LIMIT = 0.1
"""A word is counted if at most this share of windows holds it."""
PAIR_LIMIT = 0.3
"""A pair is counted if at most this share of windows holds each of its words."""
CLASSES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Least count of each class, windows of CLASS_WINDOWS."""
CLASS_WINDOWS = 3000
SPANS = tuple(192 << k for k in range(11))
"""Lengths in words of the unrelated stretches that the shares are measured on."""


class Control(ABC):
    """Weights of a document's types, and the chance of their occurrence in unrelated text.

    name: of the control, for a column. word_weights, pair_weights: nats float64 `[types]`, 0 for what is not counted; a
    pair weighs the sum of its words.
    """

    name: str
    word_weights: np.ndarray
    pair_weights: np.ndarray

    @abstractmethod
    def expected(self, kinds: np.ndarray, span: np.ndarray, near: float, *, pairs: bool) -> np.ndarray:
        """Chance that `span` words hold the item, float64 `[m]`.

        Args: kinds int `[m]`, the word, or the rarer one of a pair; span float `[m]`, words; near, words right
          before that do not hold it; pairs, whether pairs are asked for.
        """


@dataclass(frozen=True)
class ForeignText:
    """Counts of a corpus, and shares measured on pairs of its documents.

    language: of the counts. counts: windows of WINDOW words that hold each word; num_windows: of the corpus. words,
    pairs: float64 `[classes, spans]`, share of unrelated stretches of each of SPANS that hold an item of the class.
    """

    language: str
    counts: dict[str, int]
    num_windows: int
    words: np.ndarray
    pairs: np.ndarray

    def control(self, words: Sequence[str]) -> "ForeignControl":
        """Control of a document of these types."""
        return ForeignControl(self, words)

    def known_share(self, kinds: np.ndarray, words: Sequence[str]) -> float:
        """Share of the words of a document, numbers left out, that the table holds."""
        counts = counted_words(kinds, words)
        total = int(counts.sum())
        return self.known_words(counts, words) / total if total else 0.0

    def known_words(self, counts: np.ndarray, words: Sequence[str]) -> int:
        """Occurrences of the words that the table holds. Args: counts int `[types]`, of each of the words."""
        known = np.fromiter(map(self.counts.__contains__, words), dtype=bool, count=len(words))
        return int(counts[known].sum())

    def to_json(self) -> dict[str, Any]:
        """As plain values; counts apart, they have a file of their own."""
        return {
            "language": self.language,
            "num_windows": self.num_windows,
            "words": self.words.round(6).tolist(),
            "pairs": self.pairs.round(6).tolist(),
        }


def counted_words(kinds: np.ndarray, words: Sequence[str]) -> np.ndarray:
    """Occurrences of each type, int `[types]`, 0 for numbers."""
    return np.where(_are_numbers(words), 0, np.bincount(kinds, minlength=len(words)))


def _are_numbers(words: Sequence[str]) -> np.ndarray:
    return np.fromiter(map(str.isdigit, words), dtype=bool, count=len(words))


def from_json(found: dict[str, Any], counts: dict[str, int]) -> ForeignText:
    """The inverse of `ForeignText.to_json`. Raises: InputError for tables of another shape."""
    words, pairs = (np.array(found[name], dtype=np.float64) for name in ("words", "pairs"))
    expected = (len(CLASSES), len(SPANS))
    if words.shape != expected or pairs.shape != expected:
        raise InputError(f"the shares have the shapes {words.shape} and {pairs.shape}; expected {expected}.")
    return ForeignText(str(found["language"]), counts, int(found["num_windows"]), words, pairs)


class ForeignControl(Control):
    """Control that subtracts the gain of as much unrelated text of the kind."""

    def __init__(self, table: ForeignText, words: Sequence[str]) -> None:
        """Args: words, by type."""
        self.name = f"foreign:{table.language}"
        found = map(table.counts.get, words, itertools.repeat(0))
        count = np.fromiter(found, dtype=np.float64, count=len(words))
        share = (count + 0.5) / (table.num_windows + 1)
        nats = np.where(_are_numbers(words), 0.0, -np.log(share))
        self.word_weights = np.where(share < WORD_LIMIT, nats, 0.0)
        self.pair_weights = np.where(share < PAIR_LIMIT, nats, 0.0)
        self._class = _class_of(count, table.num_windows)
        # Hazards, which add up over words where shares do not.
        self._hazards = {
            False: -np.log1p(-np.minimum(table.words, 0.999)),
            True: -np.log1p(-np.minimum(table.pairs, 0.999)),
        }

    def expected(self, kinds: np.ndarray, span: np.ndarray, near: float, *, pairs: bool) -> np.ndarray:
        """See `Control`. Between the measured spans the hazard is linear, below the first proportional."""
        hazards, row = self._hazards[pairs], self._class[kinds]
        at = np.interp(np.log2(np.maximum(span, 1.0)), np.log2(SPANS), np.arange(len(SPANS)))
        low = np.minimum(at.astype(np.int64), len(SPANS) - 2)
        part = at - low
        found = hazards[row, low] * (1 - part) + hazards[row, low + 1] * part
        found = np.where(span < SPANS[0], hazards[row, 0] * span / SPANS[0], found)
        return -np.expm1(-found)


class OwnControl(Control):
    """Control that subtracts the gain at the document's own rate of the word, for languages without a table."""

    name = "own"

    def __init__(self, kinds: np.ndarray, words: Sequence[str]) -> None:
        """Args: kinds int `[n]`, the document; words, by type."""
        self._count = np.bincount(kinds, minlength=len(words)).astype(np.float64)
        self._num_words = len(kinds)
        nats = np.log(len(kinds) / np.maximum(self._count, 1.0)) if len(kinds) else np.zeros(len(words))
        nats = np.where(_are_numbers(words), 0.0, nats)
        # A word that is in a tenth of the windows of general text has such a share here.
        self.word_weights = np.where(self._count < WORD_LIMIT * len(kinds) / WINDOW + 8, nats, 0.0)
        self.pair_weights = np.where(self._count < PAIR_LIMIT * len(kinds) / WINDOW + 8, nats, 0.0)

    def expected(self, kinds: np.ndarray, span: np.ndarray, near: float, *, pairs: bool) -> np.ndarray:
        """See `Control`: that one of the word's other occurrences falls into `span` of the words that are not near."""
        share = np.minimum(span / max(1.0, self._num_words - near), 0.999)
        others = self._count[kinds] - 1
        if pairs:  # of a pair the rarer word's other occurrences mostly stand elsewhere
            return np.zeros(len(kinds))
        return -np.expm1(others * np.log1p(-share))


def count_windows(texts: Sequence[Sequence[str]]) -> tuple[Counter[str], int]:
    """Windows of WINDOW words that hold each word, and windows in all; a ragged end counts from half a window on."""
    counts: Counter[str] = Counter()
    num_windows = 0
    for words in texts:
        for start in range(0, max(1, len(words) - WINDOW // 2), WINDOW):
            counts.update(set(words[start : start + WINDOW]))
            num_windows += 1
    return counts, num_windows


def fit_foreign(
    documents: Sequence[tuple[str, str, str]], language: str, *, least: int = 2, seed: int = 0
) -> ForeignText:
    """Count a corpus and measure how much its documents share.

    The corpus is halved by group; the items of the one half are classed by counts of the other, so that no document is
    in the table that it is judged by.
    Args: documents, (group, kind, text): documents of one group (an author, a project) never count as unrelated
      text of each other, those of one kind do; least windows for a word to be kept; seed of the sample.
    Raises: InputError with fewer than four groups.
    """
    groups = sorted({group for group, _, _ in documents})
    if len(groups) < 4:
        raise InputError(
            f"there are {len(groups)} groups of documents; expected at least 4 to measure what they share."
        )
    split = [split_words(text) for _, _, text in documents]
    counts, num_windows = count_windows(split)
    rng = np.random.default_rng(seed)
    half = {
        group: int(number) for group, number in zip(groups, rng.permutation(len(groups)) % 2, strict=True)
    }
    hits, tried = np.zeros((2, len(CLASSES), len(SPANS))), np.zeros((2, len(CLASSES), len(SPANS)))
    for side in (0, 1):
        own = [i for i, (group, _, _) in enumerate(documents) if half[group] == side]
        table = count_windows([split[i] for i in range(len(documents)) if half[documents[i][0]] != side])
        for i in own:
            others = [
                j for j in own if documents[j][0] != documents[i][0] and documents[j][1] == documents[i][1]
            ]
            for j in rng.permutation(others)[:4]:
                compare(split[i], split[int(j)], table, hits, tried, rng)
    shares = np.maximum.accumulate((hits + 0.01) / (tried + 1), axis=2)
    kept = {word: count for word, count in counts.items() if count >= least}
    return ForeignText(language, kept, num_windows, shares[0], shares[1])


def compare(
    own: list[str],
    other: list[str],
    table: tuple[Counter[str], int],
    hits: np.ndarray,
    tried: np.ndarray,
    rng: Any,
) -> None:
    """Look for items of one document in stretches of another; adds to hits and tried `[2, classes, spans]`."""
    counts, num_windows = table
    sample = _sample(own, rng)
    found = _class_of(np.array([counts[word] for word in own], dtype=np.float64), num_windows)
    pairs = sample[sample > 0]
    rarer = np.minimum(found[pairs - 1], found[pairs])
    for number, span in enumerate(SPANS):
        if span > len(other):
            return
        start = int(rng.integers(0, len(other) - span + 1))
        stretch = other[start : start + span]
        held, held_pairs = set(stretch), set(itertools.pairwise(stretch))
        tests: tuple[tuple[int, np.ndarray, Iterator[bool]], ...] = (
            (0, found[sample], (own[at] in held for at in sample)),
            (1, rarer, ((own[at - 1], own[at]) in held_pairs for at in pairs)),
        )
        for sort, classes, held_there in tests:
            value = np.fromiter(held_there, dtype=np.float64, count=len(classes))
            hits[sort, :, number] += np.bincount(classes, weights=value, minlength=len(CLASSES))
            tried[sort, :, number] += np.bincount(classes, minlength=len(CLASSES))


def _sample(words: list[str], rng: Any, most: int = 1500, near: int = WINDOW) -> np.ndarray:
    """Places of words that do not occur in the `near` words before, numbers left out; at most `most`."""
    last: dict[str, int] = {}
    places = []
    for place, word in enumerate(words):
        if place - last.get(word, -near - 1) > near and not word.isdigit():
            places.append(place)
        last[word] = place
    chosen = rng.choice(len(places), min(most, len(places)), replace=False) if places else []
    return np.sort(np.array(places, dtype=np.int64)[chosen]) if places else np.zeros(0, dtype=np.int64)


def _class_of(count: np.ndarray, num_windows: int) -> np.ndarray:
    scaled = count * CLASS_WINDOWS / max(1, num_windows)
    scaled = np.where(count > 0, np.maximum(scaled, 1.0), 0.0)  # rarer than one window in 3,000, but known
    return np.searchsorted(CLASSES, scaled, side="right") - 1
