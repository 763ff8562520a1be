"""Words of a text, independent of any tokenizer: lower case, identifiers split."""

import re
from collections.abc import Iterator
from functools import cache

import numpy as np

from longlode.core.spans import ForkGuard, SpanTable

_SPACELESS = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_PART = re.compile(
    rf"[{_SPACELESS}]"  # kana and Han are written without spaces: one word per character
    r"|[A-Z]+(?![^\W\d_A-Z])"  # HTTP in HTTPServer, and whole words in capitals
    rf"|[A-Z]?[^\W\d_A-Z{_SPACELESS}]+"  # Server in HTTPServer, was, größer
    r"|\d+"
)

_GAP = re.compile(r"[\W_]")
_CHUNK_CHARACTERS = 1 << 17
_RENUMBERED_WORDS = 1 << 20
_KEPT_WORDS = 1 << 18
_KEPT_CODES = 1 << 23
"""Limit on the characters kept: pages of base64 would fill the memory with fewer words."""
_ALPHABETS = (1 << 7, 1 << 16, 0x110000)
"""Sizes of the tables of character classes (ASCII, basic plane, all), each made when a text needs it."""

# Classes of characters, and of the positions between two of them.
_NO_WORD, _LOWER, _CAPITAL, _DIGIT, _SPACELESS_LETTER, _SPACELESS_SIGN = range(6)
_CLASSES = {
    _LOWER: rf"[^\W\d_A-Z{_SPACELESS}]",
    _CAPITAL: "[A-Z]",
    _DIGIT: r"\d",
    _SPACELESS_LETTER: rf"(?![\W\d_])[{_SPACELESS}]",
    _SPACELESS_SIGN: rf"(?=[\W\d_])[{_SPACELESS}]",
}


def word_starts(text: str) -> list[int]:
    """Return the index of the first character of each word of `split_words`."""
    return [part.start() for part in _PART.finditer(text)]


def split_words(text: str) -> list[str]:
    """Split a text into words, in order, lower case; `parse_HTTPHeader2` gives parse, http, header, 2."""
    return [part.lower() for part in _PART.findall(text)]


class Vocabulary:
    """Cache of numbers for words, kept across texts, so that known words need no string operations.

    words: word by number. The cache is emptied after a text that left more than 262,144 spellings or 8 MB. Within
    such a text spellings are looked up again by their words.
    """

    def __init__(self) -> None:
        """Make an empty cache."""
        self._guard = ForkGuard(self._forget)
        self._forget()

    def _forget(self) -> None:
        self.words: list[str] = []
        self._numbers: dict[str, int] = {}
        self._spans = SpanTable()
        self._word_of_span = np.zeros(0, dtype=np.int32)
        self._first = np.zeros(0, dtype=np.int64)
        self._over = False

    def read(self, text: str) -> tuple[np.ndarray, list[str]]:
        """Number the words of a text in the order of their first occurrence.

        Returns: int32 `[n]`, the number of each word of `split_words`; and the words by number.
        """
        with self._guard:
            parts = [self._numbers_of(chunk) for chunk in _chunks(text)]
            mine = np.concatenate([np.zeros(0, dtype=np.int32), *parts])
            del parts
            result = self._renumber(mine)
            self._make_room()
            if self._over:
                self._forget()
            return result

    def _make_room(self) -> None:
        """Drop the spellings if they are too many; their words keep their numbers until the text is read."""
        if len(self._spans) > _KEPT_WORDS or self._spans.num_codes > _KEPT_CODES:
            self._spans, self._word_of_span = SpanTable(), np.zeros(0, dtype=np.int32)
            self._over = True

    def _renumber(self, mine: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Convert the cache's numbers (overwritten in place) to those of one text."""
        if len(self._first) < len(self.words):
            self._first = np.zeros(2 * len(self.words), dtype=np.int64)
        # Entries of earlier texts are harmless: only entries written just now are read.
        blocks = range(0, len(mine), _RENUMBERED_WORDS)
        for start in reversed(blocks):  # backward, so that the last write, of the first occurrence, remains
            block = mine[start : start + _RENUMBERED_WORDS]
            self._first[block[::-1]] = np.arange(start, start + len(block))[::-1]
        found = [np.zeros(0, dtype=np.int32)]
        for start in blocks:
            block = mine[start : start + _RENUMBERED_WORDS]
            found.append(block[self._first[block] == np.arange(start, start + len(block))])
        types = np.concatenate(found)
        self._first[types] = np.arange(len(types))
        for start in blocks:
            block = mine[start : start + _RENUMBERED_WORDS]
            block[:] = self._first[block]
        return mine, [self.words[number] for number in types.tolist()]

    def _numbers_of(self, chunk: str) -> np.ndarray:
        if (
            len(chunk) > 8 * _CHUNK_CHARACTERS
        ):  # one very long word, or a script without any separator: rare, and slow
            return np.array([self._number(word) for word in split_words(chunk)], dtype=np.int32)
        if chunk.isascii():
            codes: np.ndarray = np.frombuffer(chunk.encode("ascii"), dtype=np.uint8)
        else:
            codes = np.frombuffer(chunk.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        self._make_room()
        starts, stops = word_bounds(codes)
        spans, new = self._spans.numbers(codes, starts, stops)
        if len(new):
            found = [
                self._number(chunk[a:b].lower())
                for a, b in zip(starts[new].tolist(), stops[new].tolist(), strict=True)
            ]
            self._word_of_span = np.append(self._word_of_span, np.array(found, dtype=np.int32))
        return self._word_of_span[spans]

    def _number(self, word: str) -> int:
        number = self._numbers.setdefault(word, len(self.words))
        if number == len(self.words):
            self.words.append(word)
        return number


@cache
def shared_vocabulary() -> Vocabulary:
    """Return the vocabulary shared within this process."""
    return Vocabulary()


def _chunks(text: str) -> Iterator[str]:
    """Cut a text into chunks, never inside a word."""
    start = 0
    while start < len(text):
        gap = _GAP.search(text, start + _CHUNK_CHARACTERS)
        stop = gap.start() if gap else len(text)
        yield text[start:stop]
        start = stop


def word_bounds(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the starts and stops of the words of `split_words`, vectorised, int `[words]` each.

    Args: codes, of characters, uint `[n]`; UTF-32, or bytes if all are ASCII.
    """
    kinds = np.zeros(len(codes) + 2, dtype=np.uint8)
    most = int(codes.max(initial=0))
    kinds[1:-1] = _classes(next(size for size in _ALPHABETS if size > most)).take(codes)
    here, after = kinds[1:-1], kinds[2:]
    if most >= _ALPHABETS[0]:  # the pattern excludes a capital right before a letter without case
        here[(here == _CAPITAL) & (after == _SPACELESS_LETTER)] = _NO_WORD
    same = _joins().take(kinds[:-1] * np.uint8(8) + kinds[1:])
    capitals = np.flatnonzero(same[:-1] == _CAPITAL)
    same[capitals] = after[capitals] != _LOWER  # the last capital belongs to the next word
    joined = same.view(bool)
    in_word = here != _NO_WORD
    return np.flatnonzero(in_word & ~joined[:-1]), np.flatnonzero(in_word & ~joined[1:]) + 1


@cache
def _joins() -> np.ndarray:
    """Table by 8 * class of a character + class of the next: 1 if in one word, 2 if the text after decides."""
    joins = np.zeros(64, dtype=np.uint8)
    for before, here in ((_LOWER, _LOWER), (_DIGIT, _DIGIT), (_CAPITAL, _LOWER)):
        joins[8 * before + here] = 1
    joins[8 * _CAPITAL + _CAPITAL] = _CAPITAL
    return joins


@cache
def _classes(size: int) -> np.ndarray:
    """Return the class of each of the first `size` characters, uint8 `[size]`."""
    characters = "".join(map(chr, range(size)))
    classes = np.zeros(len(characters), dtype=np.uint8)
    for number, pattern in _CLASSES.items():
        for run in re.finditer(f"(?:{pattern})+", characters):
            classes[run.start() : run.end()] = number
    return classes
