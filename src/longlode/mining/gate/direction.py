"""Direction: the log-odds that passages follow each other in reading order rather than in reverse.

A passage (a sentence, a paragraph) has symbols: the word it begins with, and the sign before that; its second and last
word; its shape (how it begins and ends, whether it is indented, its length). For neighbours x, y, and for those that
have one passage between them,

    log-odds that x stands before y = sum over templates (a, b) of  w(a_x, b_y) - w(a_y, b_x)

Terms of one passage alone cancel along the text; the sum depends on which passage follows which: an answer its
question, a pronoun its name, a closing quotation mark its opening one. A word is also introduced differently from how
it is used later; so the signs and words around its first and its last mention are compared in the same way.

The weights are fitted by logistic regression with a penalty on coherent text, each pair against itself reversed; no
reversed text is needed. The sum is positive in order, negative where the passages are reversed, near 0 if they are
shuffled. Words that the table lacks count by their first character, so a language without a table keeps the signs.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from longlode.mining.gate.minimize import minimize
from longlode.mining.gate.parsed_text import (
    CAPITAL,
    CLOSING,
    DASH,
    EXCLAMATION,
    NUM_CLASSES,
    OPENING,
    QUOTE,
    SIGN,
    SPACE,
    STOP,
    ParsedText,
)

TOP_WORDS, FEWEST_TEXTS = 100, 4
"""A word is known if it is among this many commonest words of this many texts."""
MOST_MENTIONS = 30
FEWEST = 6
"""Pairs that a weight is fitted on, at least."""
PENALTY, STEPS = 50.0, 30
MOST_WEIGHTS = 12_000
"""Weights kept of each table, the largest."""
_SENTENCE_TEMPLATES = (
    *(
        (a, b)
        for i, a in enumerate(("begin", "second", "last", "shape"))
        for b in ("begin", "second", "last", "shape")[i:]
    ),
    ("last", "begin"),
    ("shape", "begin"),
    ("second", "begin"),
)
_PARAGRAPH_TEMPLATES = (
    ("begin", "begin"),
    ("begin", "second"),
    ("shape", "shape"),
    ("shape", "begin"),
    ("begin", "shape"),
    ("last", "begin"),
    ("end_begin", "begin"),
    ("end_shape", "first_shape"),
    ("end_shape", "begin"),
    ("first_shape", "first_shape"),
    ("begin", "end_begin"),
)
_MENTION_TEMPLATES = (
    ("before", "nothing"),
    ("after", "nothing"),
    ("signs", "nothing"),
    ("word_before", "after"),
)
TABLES = ("sentence", "line", "paragraph", "mention")
_BITS = 23  # of a symbol in a key
_HASH_BITS = 17
_HASH = np.uint64(0x9E3779B97F4A7C15)
_LENGTHS = 4
_PASSED = np.isin(np.arange(NUM_CLASSES), (QUOTE, CLOSING, OPENING, DASH))
"""True for the classes of signs that may stand between the end of a sentence and the next word."""
_ENDS = NUM_CLASSES * NUM_CLASSES
Keys = tuple[np.ndarray, np.ndarray]
"""Keys of each pair in order, and reversed: int64 `[m, templates]` each."""


@dataclass(frozen=True, eq=False)
class Directions:
    """Fitted tables of direction.

    words: known words. keys, weights: by table, int64 ascending and float64, `[k]` each; a key is a template and two
    symbols in one number.
    """

    words: tuple[str, ...]
    keys: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]

    def weights_of(self, table: str, asked: np.ndarray) -> np.ndarray:
        """Sum of the weights of each row of keys, float64 `[m]`. Args: asked int64 `[m, templates]`."""
        keys, weights, (first, following) = self.keys[table], self.weights[table], self._chains[table]
        flat = asked.reshape(-1)
        found = np.zeros(len(flat))
        at = first.take(_hashed(flat))
        rows = np.flatnonzero(at >= 0)  # few: most keys are not in the table
        wanted, at = flat.take(rows), at.take(rows)
        while len(rows):
            hit = keys.take(at) == wanted
            found[rows] = np.where(hit, weights.take(at), 0.0)
            at = following.take(at)
            left = np.flatnonzero(~hit & (at >= 0))
            rows, wanted, at = rows[left], wanted[left], at[left]
        total: np.ndarray = found.reshape(asked.shape).sum(axis=1)
        return total

    @cached_property
    def _chains(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Hash table of each table, two arrays, int32.

        The first row with each hash, `[1 << _HASH_BITS]`, and the next row with the hash of each, `[k]`; -1 for none.
        """
        return {name: _chained(keys) for name, keys in self.keys.items()}

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.words)}

    def numbers_of(self, words: Sequence[str]) -> np.ndarray:
        """Number of each word among the known ones, -1 for others, int64 `[words]`."""
        numbers = map(self._numbers.get, words, itertools.repeat(-1))
        return np.fromiter(numbers, dtype=np.int64, count=len(words))

    @classmethod
    def none(cls) -> "Directions":
        """Empty tables: all directions are 0."""
        return cls((), {t: np.zeros(0, np.int64) for t in TABLES}, {t: np.zeros(0) for t in TABLES})


def direction(parsed: ParsedText, known: Directions) -> dict[str, float]:
    """Log-odds of the order of sentences, paragraphs and mentions: in standard errors, and per pair."""
    found: dict[str, float] = {}
    nothing = (np.zeros((0, 1), np.int64),) * 2
    pairs = _pairs(parsed, known) if parsed.num_words else dict.fromkeys(TABLES, nothing)
    for name in TABLES:
        here, turned = pairs[name]
        value = known.weights_of(name, here) - known.weights_of(name, turned)
        total = float(value.sum())
        found[f"direction_{name}"] = total / float(np.sqrt((value**2).sum() + 1.0))
        found[f"direction_{name}_mean"] = total / (len(value) + 10)
    return found


def learn_directions(texts: Sequence[ParsedText]) -> Directions:
    """Fit coherent texts, in their order; without any, the tables are empty."""
    if not texts:
        return Directions.none()
    words = _common_words(texts)
    known = replace(Directions.none(), words=words)
    parts: dict[str, list[Keys]] = {name: [] for name in TABLES}
    for parsed in texts:
        for name, pair in _pairs(parsed, known).items():
            parts[name].append(pair)
    keys, weights = {}, {}
    for name, rows in parts.items():
        here, turned = [one for one, _ in rows], [other for _, other in rows]
        keys[name], weights[name] = _fit(np.concatenate(here), np.concatenate(turned))
    return Directions(words, keys, weights)


def _common_words(texts: Sequence[ParsedText]) -> tuple[str, ...]:
    number: Counter[str] = Counter()
    for parsed in texts:
        common = np.argsort(-parsed.counts, kind="stable")[:TOP_WORDS]
        number.update(parsed.words[kind] for kind in common.tolist() if not parsed.is_number[kind])
    return tuple(sorted(word for word, holders in number.items() if holders >= FEWEST_TEXTS))


def _fit(here: np.ndarray, turned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys and weights, fitted so that pairs are likelier in order than reversed."""
    keys, inverse, count = np.unique(
        np.concatenate([here.ravel(), turned.ravel()]), return_inverse=True, return_counts=True
    )
    kept = count >= FEWEST
    column = (np.cumsum(kept) * kept)[inverse].astype(np.int32)  # 0: a key that is too rare
    plus, minus = column[: here.size].reshape(here.shape), column[here.size :].reshape(turned.shape)
    size, per_pair = int(kept.sum()) + 1, plus.size // max(len(plus), 1)

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        weights = np.append(0.0, free)
        margin = weights[plus].sum(axis=1) - weights[minus].sum(axis=1)
        push = np.repeat(-1 / (1 + np.exp(np.minimum(margin, 500.0))), per_pair)
        slope = np.bincount(plus.ravel(), weights=push, minlength=size)
        slope -= np.bincount(minus.ravel(), weights=push, minlength=size)
        value = np.logaddexp(0.0, -margin).sum() + PENALTY * (free @ free) / 2
        return float(value), slope[1:] + PENALTY * free

    weights = minimize(loss, np.zeros(size - 1), steps=STEPS)
    most = np.sort(np.abs(weights))[-MOST_WEIGHTS:]
    chosen = np.abs(weights) >= max(most[0] if len(most) else 0.0, 1e-3)
    return keys[kept][chosen], weights[chosen]


def _hashed(keys: np.ndarray) -> np.ndarray:
    """The upper bits of a product with an odd number, int64."""
    return ((keys.view(np.uint64) * _HASH) >> np.uint64(64 - _HASH_BITS)).view(np.int64)


def _chained(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `Directions._chains`."""
    hashes = _hashed(keys)
    order = np.argsort(hashes, kind="stable")
    first, following = np.full(1 << _HASH_BITS, -1, np.int32), np.full(len(keys), -1, np.int32)
    first[hashes[order[::-1]]] = order[::-1]  # of several writes the last remains
    same = np.flatnonzero(np.diff(hashes[order]) == 0)
    following[order[same]] = order[same + 1]
    return first, following


def _keys(
    templates: Sequence[tuple[str, str]], symbols: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Halves of keys, int64 `[m, templates]` each: one passage's first OR another's second half is a key.

    Args: templates, names of the symbols of either half; symbols by name, int `[m]` each.
    """
    number = np.arange(len(templates), dtype=np.int64) << 2 * _BITS
    ahead = np.stack([symbols[a] for a, _ in templates], axis=1).astype(np.int64, copy=False) << _BITS
    behind = np.stack([symbols[b] for _, b in templates], axis=1).astype(np.int64, copy=False)
    return ahead | number, behind


def _neighbours(ahead: np.ndarray, behind: np.ndarray, wanted: np.ndarray) -> Keys:
    """Keys of every wanted passage with the one before it, and with the one before that.

    Args: ahead, behind of `_keys`; wanted bool `[m]`.
    """
    here: list[np.ndarray] = []
    turned: list[np.ndarray] = []
    for lag in (1, 2):
        number = np.int64((lag - 1) * ahead.shape[1]) << 2 * _BITS
        rows = np.flatnonzero(wanted[lag:])
        here.append((ahead[rows] + number) | behind[rows + lag])
        turned.append((ahead[rows + lag] + number) | behind[rows])
    return np.concatenate(here), np.concatenate(turned)


def _pairs(parsed: ParsedText, known: Directions) -> dict[str, Keys]:
    """Keys by table, of a text."""
    word, num_known = _word_symbols(parsed, known), len(known.words)
    sentences, place = _passages(parsed, word, parsed.true_sentence_starts, num_known)
    paragraphs, at = _passages(parsed, word, parsed.outer_starts, num_known)
    first = np.searchsorted(place, at)
    last = np.append(first[1:], len(place)) - 1
    first, last = (np.clip(rows, 0, max(0, len(place) - 1)) for rows in (first, last))
    paragraphs |= {
        "end_begin": sentences["begin"][last],
        "first_shape": sentences["shape"][first],
        "end_shape": sentences["shape"][last],
    }
    # A sentence after an end is one thing, a line after a line another: code is made of lines.
    ended = _after_end(parsed, parsed.starts[place])
    of_sentences, of_paragraphs = (
        _keys(_SENTENCE_TEMPLATES, sentences),
        _keys(_PARAGRAPH_TEMPLATES, paragraphs),
    )
    return {
        "sentence": _neighbours(*of_sentences, ended),
        "line": _neighbours(*of_sentences, ~ended),
        "paragraph": _neighbours(*of_paragraphs, np.ones(len(at), dtype=bool)),
        "mention": _mentions(parsed, word, place, num_known),
    }


def _word_symbols(parsed: ParsedText, known: Directions) -> np.ndarray:
    """Symbol of each word, int64 `[n]`: its number among the known ones, else one for its first character."""
    number = parsed.by_type(known.numbers_of)
    # The types' part first: there are fewer types than words.
    of_type = np.where(number >= 0, number, len(known.words) + 2 * parsed.is_number)[parsed.kinds]
    return of_type + ((parsed.classes[parsed.starts] == CAPITAL) & (of_type >= len(known.words)))


def _passages(
    parsed: ParsedText, word: np.ndarray, starts: np.ndarray, num_known: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Symbols of the passages that begin at `starts` (characters) and hold a word; number of their first word."""
    kind, ink = parsed.classes, parsed.ink
    begin = np.searchsorted(parsed.starts, starts)
    full = np.append(begin[1:], len(word)) > begin
    begin, starts = begin[full], starts[full]
    stop = np.append(begin[1:], len(word))
    second = np.where(stop - begin > 1, word[np.minimum(begin + 1, len(word) - 1)], num_known + 4)
    row = np.searchsorted(ink, starts)
    first, last = ink[row], ink[np.append(row[1:], len(ink)) - 1]
    # Letters and digits say nothing where signs are asked for.
    lead = np.where(kind[first] <= SIGN, SPACE, kind[first]).astype(np.int64)
    before = np.where(last > first, kind[np.maximum(last - 1, 0)], SPACE).astype(np.int64)
    before = np.where(before <= SIGN, SPACE, before)
    # Blanks and tabs before the first sign are an indent.
    indent = parsed.codes[np.maximum(first - 1, 0)]
    indented = (first > starts) & ((indent == ord(" ")) | (indent == ord("\t")))
    size = np.minimum(_LENGTHS - 1, (np.log(last - first + 2) / 1.7).astype(np.int64))
    end = before * NUM_CLASSES + kind[last]
    symbols = {
        "begin": word[begin] * NUM_CLASSES + lead,
        "second": second,
        "last": word[stop - 1],
        "shape": ((lead * 2 + indented) * _ENDS + end) * _LENGTHS + size,
    }
    return symbols, begin


def _after_end(parsed: ParsedText, at: np.ndarray) -> np.ndarray:
    """True where a sentence ends before a word of `at`, bool; quotation marks and brackets are skipped."""
    kind, ink = parsed.classes, parsed.ink
    row = np.searchsorted(ink, at) - 1
    for _ in range(3):
        row = row - ((row >= 0) & _PASSED.take(kind[ink[np.maximum(row, 0)]]))
    last = kind[ink[np.maximum(row, 0)]]
    ended: np.ndarray = (row >= 0) & (last >= STOP) & (last <= EXCLAMATION)
    return ended


def _mentions(parsed: ParsedText, word: np.ndarray, sentences: np.ndarray, num_known: int) -> Keys:
    """First and last mention of words that return in another sentence.

    Args: sentences, numbers of the first word of each.
    """
    seen, count, n = parsed.seen, np.diff(parsed.seen.first), len(word)
    first, last = seen.position[seen.first[:-1]], seen.position[seen.first[1:] - 1]
    sentence = np.searchsorted(sentences, np.stack([first, last]), side="right")
    rows = (count >= 2) & (count <= MOST_MENTIONS) & (sentence[0] != sentence[1])
    kind = parsed.classes
    capital = kind[parsed.starts] == CAPITAL
    opens = np.zeros(n, dtype=bool)
    opens[sentences] = True
    sizes = parsed.word_lengths[parsed.kinds]
    nothing = num_known + 4
    before, after = np.append(nothing, word[:-1]), np.append(word[1:], nothing)

    def symbols(place: np.ndarray) -> np.ndarray:
        at = parsed.starts[place]
        signs = kind[np.maximum(at - 1, 0)].astype(np.int64) * NUM_CLASSES
        signs += kind[np.minimum(at + sizes[place], len(kind) - 1)]
        found = {
            "before": before[place] * 4 + capital[place] * 2 + opens[place],
            "after": after[place],
            "signs": signs * 2 + capital[place],
            "word_before": before[place],
            "nothing": np.zeros(len(place), dtype=np.int64),
        }
        ahead, behind = _keys(_MENTION_TEMPLATES, found)
        return ahead | behind

    return symbols(first[rows]), symbols(last[rows])
