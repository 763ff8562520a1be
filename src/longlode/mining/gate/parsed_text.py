"""Parsed text: characters, words, paragraphs, sentences."""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from longlode.corpus.words import shared_vocabulary, word_bounds
from longlode.mining.coherence.order import Occurrences

LONG_PARAGRAPH = 2500
"""Characters; if blank lines are further apart on average, each line, or every four sentences, is a paragraph."""
OUTER_INDENT = 4
"""Blanks and tabs."""
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

    codes: uint32 `[characters]`; starts: int `[n]`, first character of each word; kinds: int `[n]`, its type;
    words: by type.
    """

    text: str
    codes: np.ndarray
    starts: np.ndarray
    kinds: np.ndarray
    words: list[str]

    @classmethod
    def of(cls, text: str) -> "ParsedText":
        """Read a text."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        kinds, words = shared_vocabulary().read(text)
        return cls(text, codes, word_bounds(codes)[0], kinds, words)

    @property
    def num_words(self) -> int:
        """The number of words, n."""
        return len(self.kinds)

    @cached_property
    def counts(self) -> np.ndarray:
        """Occurrences of each type, int `[types]`."""
        return np.bincount(self.kinds, minlength=len(self.words))

    @cached_property
    def is_number(self) -> np.ndarray:
        """True for types that are digits, bool `[types]`."""
        return np.array([word.isdigit() for word in self.words], dtype=bool)

    @cached_property
    def seen(self) -> Occurrences:
        """Occurrences of all words."""
        return Occurrences(self.kinds)

    @cached_property
    def classes(self) -> np.ndarray:
        """Class of each character, uint8; beyond the basic plane all are signs."""
        found: np.ndarray = _CLASSES[np.minimum(self.codes, _TABLE_SIZE - 1)]
        return found

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
        found = np.searchsorted(self.paragraph_starts, self.starts, side="right")
        return np.cumsum(np.append(0, found[1:] != found[:-1])) if len(found) else found

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
