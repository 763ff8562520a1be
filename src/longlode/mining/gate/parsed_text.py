"""Parsed text: characters, words, paragraphs, sentences."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from longlode.corpus.words import shared_vocabulary, split_words, word_bounds, word_starts
from longlode.mining.coherence.order import Occurrences

LONG_PARAGRAPH = 2500
"""Characters; if blank lines are further apart on average, each line, or every four sentences, is a paragraph."""
OUTER_INDENT = 4
"""Blanks and tabs."""
_GAP = re.compile(r"[\W_]")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_SENTENCE_END = re.compile(r"[.!?。！？][\"'”’」』]?\s*")

# Classes of characters, as far as they tell how a passage begins and ends.
_GROUPS = (
    "",  # 0: white space
    "",  # 1: other letters
    "",  # 2: capitals
    "",  # 3: digits
    "",  # 4: other signs
    "\"'“”„«»‘’「」『』‹›",  # 5: quotation marks
    ".。…",
    "?？",
    "!！",
    "-—–",
    ",，、;；",
    ":：",
    "([{（【",
    ")]}）】",
    *"\\#*_=/<>`~|@$%^&+",
)
SPACE, LETTER, CAPITAL, DIGIT, SIGN, QUOTE, STOP, QUESTION, EXCLAMATION = range(9)
DASH, COMMA, OPENING, CLOSING = 9, 10, 12, 13
NUM_CLASSES = len(_GROUPS)
_TABLE_SIZE = 1 << 16


def _class_table() -> np.ndarray:
    table = np.full(_TABLE_SIZE, SIGN, dtype=np.uint8)
    for code in range(_TABLE_SIZE):
        character = chr(code)
        if character.isspace() or code < 33:
            table[code] = SPACE
        elif character.isalpha():
            table[code] = CAPITAL if character.isupper() else LETTER
        elif character.isdigit():
            table[code] = DIGIT
    for number, signs in enumerate(_GROUPS):
        for sign in signs:
            table[ord(sign)] = number
    return table


_CLASSES = _class_table()


@dataclass(frozen=True, eq=False)
class ParsedText:
    """A text of n words.

    codes: of its characters, `[characters]`, uint8 where all are ASCII, else uint32; starts: int `[n]`, first character
    of each word; kinds: int `[n]`, its type; words: by type.
    """

    text: str
    codes: np.ndarray
    starts: np.ndarray
    kinds: np.ndarray
    words: list[str]

    @classmethod
    def of(cls, text: str) -> "ParsedText":
        """Read a text."""
        if text.isascii():
            codes: np.ndarray = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
        else:
            codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        kinds, words = shared_vocabulary().read(text)
        return cls(text, codes, word_bounds(codes)[0], kinds, words)

    def part(self, start: int, stop: int) -> "ParsedText":
        """The characters from `start` up to `stop` as a text of its own, without reading all of them again.

        Equal to `ParsedText.of(text[start:stop])`: only what stands before the first and after the last sign that is
        no part of a word is read again, since a word may have been cut there. Args: 0 <= start <= stop.
        """
        text = self.text[start:stop]
        first = _GAP.search(text)
        head = first.start() if first else len(text)
        tail = next((k + 1 for k in range(len(text) - 1, head, -1) if _GAP.match(text[k])), head)
        low, high = np.searchsorted(self.starts, (start + head, start + tail))
        words = list(self.words)
        head_starts, head_kinds = self._read_again(text, 0, head, words)
        tail_starts, tail_kinds = self._read_again(text, tail, len(text), words)
        starts = np.concatenate([head_starts, self.starts[low:high] - start, tail_starts])
        kinds, types = _renumbered(np.concatenate([head_kinds, self.kinds[low:high], tail_kinds]), len(words))
        mine = list(map(words.__getitem__, types.tolist()))
        found = ParsedText(text, self.codes[start:stop], starts, kinds, mine)
        # Properties of words and of single characters need not be made again either.
        found.__dict__["_origin"] = self, words[len(self.words) :], types
        found.__dict__["classes"] = self.classes[start:stop]
        inked = np.searchsorted(self.ink, (start, stop))
        found.__dict__["ink"] = self.ink[inked[0] : inked[1]] - start
        return found

    def _read_again(self, text: str, begin: int, end: int, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Starts and types of the words of `text[begin:end]`; types that are new are added to `words`."""
        cut = split_words(text[begin:end])
        new = {word: number for number, word in enumerate(words[len(self.words) :], len(self.words))}
        kinds = []
        for word in cut:
            number = self._numbers.get(word, new.get(word, len(words)))
            if number == len(words):
                new[word] = number
                words.append(word)
            kinds.append(number)
        starts = np.array(word_starts(text[begin:end]), dtype=np.int64) + begin
        return starts, np.array(kinds, dtype=self.kinds.dtype)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    @property
    def num_words(self) -> int:
        """The number of words, n."""
        return len(self.kinds)

    @cached_property
    def counts(self) -> np.ndarray:
        """Occurrences of each type, int `[types]`."""
        return np.bincount(self.kinds, minlength=len(self.words))

    def by_type(self, function: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
        """A function of words, of each type, `[types]`: called once per word of a text, for its parts too.

        Args: function, from words to a value of each that depends on the word alone.
        """
        if function not in self._by_type:
            if self._origin is None:
                self._by_type[function] = function(self.words)
            else:
                whole, new, types = self._origin
                self._by_type[function] = np.append(whole.by_type(function), function(new))[types]
        return self._by_type[function]

    @cached_property
    def _origin(self) -> "tuple[ParsedText, list[str], np.ndarray] | None":
        """The whole that it is a part of, words not in the whole, and the number of each type in both, end to end."""
        return None

    @cached_property
    def _by_type(self) -> dict[Callable[[Sequence[str]], np.ndarray], np.ndarray]:
        return {}

    @property
    def is_number(self) -> np.ndarray:
        """True for types that are digits, bool `[types]`."""
        return self.by_type(are_numbers)

    @property
    def word_lengths(self) -> np.ndarray:
        """Characters of each type, int64 `[types]`."""
        return self.by_type(_lengths)

    @cached_property
    def seen(self) -> Occurrences:
        """Occurrences of all words."""
        return Occurrences(self.kinds)

    @cached_property
    def classes(self) -> np.ndarray:
        """Class of each character, uint8; beyond the basic plane all are signs."""
        return _CLASSES.take(self.codes, mode="clip")

    @cached_property
    def paragraph_starts(self) -> np.ndarray:
        """First character of each paragraph, int, ascending, 0 first."""
        places = [found.end() for found in _BLANK_LINE.finditer(self.text)]
        if len(places) * LONG_PARAGRAPH < len(self.text):
            places = (np.flatnonzero(self.codes == ord("\n")) + 1).tolist()
        if len(places) * LONG_PARAGRAPH < len(self.text):
            places = [found.end() for found in _SENTENCE_END.finditer(self.text)][::4]
        return np.array([0, *places])

    @cached_property
    def paragraph(self) -> np.ndarray:
        """Number of the paragraph of each word, without gaps, int `[n]`."""
        first = np.searchsorted(self.starts, self.paragraph_starts[1:])  # the first word from there on
        begins = np.zeros(self.num_words + 1, dtype=bool)
        begins[first] = True
        begins[0] = False
        return np.cumsum(begins[:-1])

    @cached_property
    def sentence_starts(self) -> np.ndarray:
        """First character of each sentence and line, int, ascending, 0 first."""
        kind = self.classes
        ends = (kind >= STOP) & (kind <= EXCLAMATION)
        closers = (kind == QUOTE) | (kind == CLOSING)
        after = np.zeros(len(kind), dtype=bool)
        after[1:] = ends[:-1]
        after[2:] |= ends[:-2] & closers[1:-1]
        after &= ~ends & ~closers
        after[1:] |= self.codes[:-1] == ord("\n")
        return np.append(0, np.flatnonzero(after))

    @cached_property
    def true_sentence_starts(self) -> np.ndarray:
        """As `sentence_starts`, without lines that continue the sentence of the line before."""
        starts, kind, ink = self.sentence_starts, self.classes, self.ink
        if not len(ink):
            return starts
        row = np.searchsorted(ink, starts)
        before, after = ink[np.maximum(row - 1, 0)], ink[np.minimum(row, len(ink) - 1)]
        open_end = (kind[before] <= DIGIT) | (kind[before] == COMMA)
        goes_on = open_end & (kind[after] == LETTER) & (self.codes[np.maximum(starts - 1, 0)] == ord("\n"))
        return starts[~goes_on | (starts == 0)]

    @cached_property
    def outer_starts(self) -> np.ndarray:
        """As `paragraph_starts`, of paragraphs that are not indented deeper than by OUTER_INDENT: blocks of code."""
        starts, ink = self.paragraph_starts, self.ink
        if not len(ink):
            return starts
        first = ink[np.minimum(np.searchsorted(ink, starts), len(ink) - 1)]
        line = np.append(-1, np.flatnonzero(self.codes == ord("\n")))
        indent = first - line[np.searchsorted(line, first) - 1] - 1
        return starts[(indent <= OUTER_INDENT) | (starts == 0)]

    @cached_property
    def ink(self) -> np.ndarray:
        """Places of characters that are not white space, int, ascending."""
        return np.flatnonzero(self.classes != SPACE)


def are_numbers(words: Sequence[str]) -> np.ndarray:
    """True for words that are digits, bool `[words]`."""
    return np.fromiter(map(str.isdigit, words), dtype=bool, count=len(words))


def _lengths(words: Sequence[str]) -> np.ndarray:
    return np.fromiter(map(len, words), dtype=np.int64, count=len(words))


def _renumbered(kinds: np.ndarray, num_types: int) -> tuple[np.ndarray, np.ndarray]:
    """Types numbered anew in the order of their first occurrence, and the former number of each."""
    places = np.arange(len(kinds))
    first = np.zeros(num_types, dtype=np.int64)
    first[kinds[::-1]] = places[::-1]  # of several writes the last remains: the first occurrence
    types = kinds[first[kinds] == places]
    number = np.zeros(num_types, dtype=kinds.dtype)
    number[types] = np.arange(len(types))
    return number[kinds], types
