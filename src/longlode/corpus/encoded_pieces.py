"""Tokenization through a cache of encoded pieces: the same tokens, two to seven times faster on ASCII text.

A byte-level BPE first splits a text by a pattern and then encodes each piece alone, so the tokens of a piece can be
cached. `tokenizers` does so, but its split takes most of the time. Here the text is cut by bytes, at positions where
the pattern cuts as well: right after a run of ASCII letters or digits that ends at ASCII of another class, between a
sign and a single space, between signs (after a space, or two and more) and a letter, and after a line end between two
lines. The stretch between two such positions is encoded once, and then found by its bytes (`short_spans`).
"""

import itertools
import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from longlode.core.spans import ForkGuard
from longlode.core.token_cuts import splits_at_runs
from longlode.corpus.short_spans import MOST_BYTES, ShortSpanTable

_BLOCK_BYTES = 1 << 17
_LONG_BYTES = 48
"""Longest stretch that is cached (bytes); longer ones hardly repeat."""
_KEPT_PIECES = 1 << 18
_LETTER, _DIGIT, _SIGN, _SPACE, _LINE, _BLANK, _OTHER = range(7)
"""Classes of bytes: ASCII except the last; blank is white space other than the space and the line end."""
_Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Tokens int32 `[t]`; and for each stretch where its own begin among them, and how many they are, int64 `[k]`."""
_KEPT_SHARE = 0.7
"""Least share of a block that must be cacheable; below it the block goes to the tokenizer as a whole."""


def piece_cutter(tokenizer_json: str) -> "list[str] | None":
    """Decide if tokens of a text may be concatenated from those of its stretches, for a tokenizer as JSON.

    Returns: None if that is not known; else the strings that a text must not contain (beginnings of added tokens).
    """
    found = json.loads(tokenizer_json)
    if not splits_at_runs(found):
        return None
    return sorted({one["content"][:2] for one in found.get("added_tokens") or []})


class EncodedPieces:
    """Cache of the tokens of stretches: at most 262,144, then it is emptied."""

    def __init__(
        self,
        encode: Callable[[list[str]], tuple[Sequence[int], Sequence[int]]],
        encode_whole: Callable[[str], Sequence[int]],
    ) -> None:
        """Args: encode, a function from texts to their tokens, concatenated, and how many each text has;
        encode_whole, a function from a text to its tokens, for texts not worth caching.
        """
        self._encode = encode
        self._encode_whole = encode_whole
        self._guard = ForkGuard(self._forget)
        self._forget()

    def __reduce__(self) -> tuple[type["EncodedPieces"], tuple[Any, ...]]:
        """Copy without the cached tokens."""
        return type(self), (self._encode, self._encode_whole)

    def _forget(self) -> None:
        self._short, self._longer = _Kept(), _Kept()
        self._table = ShortSpanTable()
        self._number_of: dict[bytes, int] = {}

    def tokens(self, text: str) -> np.ndarray:
        """Return the tokens of a text, int32 `[n]`."""
        return self.tokens_of([text])[0]

    def tokens_of(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the tokens of each text, int32 `[n]`. Many short texts at once cost little more than one long one."""
        encoded = [text.encode("utf-8") for text in texts]
        data, ends = b"".join(encoded), np.cumsum([len(one) for one in encoded], dtype=np.int64)
        found, counts, start = [np.zeros(0, dtype=np.int32)], np.zeros(len(texts), dtype=np.int64), 0
        with self._guard:
            while start < len(data):
                block, cuts = _block(data, start, ends)
                first, last = np.searchsorted(ends, [start, start + len(block)])
                edges = np.concatenate([[0], ends[first:last] - start, [len(block)]])
                tokens, num = self._block_tokens(block, cuts, edges)
                found.append(tokens)
                counts[first : last + 1] += num[: len(texts) - first]
                start += len(block)
                if len(self._short) + len(self._longer) > _KEPT_PIECES:
                    self._forget()
        parts = np.split(np.concatenate(found), np.cumsum(counts)[:-1])
        return parts[: len(texts)]  # of no text numpy makes one part

    def _block_tokens(
        self, block: bytes, cuts: np.ndarray, edges: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encode a block: its tokens, int32 `[n]`, and how many lie between one edge and the next, int64.

        Args: cuts, ascending places to cut at, edges among them; edges, int `[e]`, 0, the ends of texts, and the end of
          the block.
        """
        starts, stops = cuts[:-1], cuts[1:]
        lengths = stops - starts
        if lengths[lengths <= _LONG_BYTES].sum() < _KEPT_SHARE * len(block):
            ends = edges.tolist()
            parts = [self._encode_whole(block[a:b].decode("utf-8")) for a, b in itertools.pairwise(ends)]
            tokens = np.concatenate([np.array(part, dtype=np.int32) for part in parts])
            return tokens, np.array([len(part) for part in parts])
        # Where the tokens of each stretch begin in the tokens of all three kinds, laid end to end.
        first, num = np.empty(len(starts), dtype=np.int64), np.empty(len(starts), dtype=np.int64)
        pool: list[np.ndarray] = []
        before = 0
        for is_kind, look_up in (
            (lengths <= MOST_BYTES, self._look_up_short),
            ((lengths > MOST_BYTES) & (lengths <= _LONG_BYTES), self._look_up_longer),
            (lengths > _LONG_BYTES, self._encode_all),
        ):
            rows = np.flatnonzero(is_kind)
            if len(rows):
                tokens, of_first, num[rows] = look_up(block, starts[rows], lengths[rows])
                first[rows] = before + of_first
                pool.append(tokens)
                before += len(tokens)
        stop = np.cumsum(num)
        every = pool[0] if len(pool) == 1 else np.concatenate(pool)
        tokens = every[np.repeat(first - (stop - num), num) + np.arange(stop[-1])]
        return tokens, np.diff(np.append(0, stop)[np.searchsorted(cuts, edges)])

    def _look_up_short(self, block: bytes, starts: np.ndarray, lengths: np.ndarray) -> _Found:
        numbers, new = self._table.numbers(block, starts, lengths)
        if len(new):
            self._short.add(*self._each(block, starts[new], lengths[new]))
        return self._short.of(numbers)

    def _look_up_longer(self, block: bytes, starts: np.ndarray, lengths: np.ndarray) -> _Found:
        bounds = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
        known, size = self._number_of, len(self._longer)
        numbers = np.array([known.setdefault(block[a:b], len(known)) for a, b in bounds])
        if len(known) > size:
            # The new numbers are the largest.
            first = np.unique(numbers, return_index=True)[1]
            new = first[-(len(known) - size) :]
            self._longer.add(*self._each(block, starts[new], lengths[new]))
        return self._longer.of(numbers)

    def _encode_all(self, block: bytes, starts: np.ndarray, lengths: np.ndarray) -> _Found:
        tokens, num = self._each(block, starts, lengths)
        return tokens, np.cumsum(num) - num, num

    def _each(self, block: bytes, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Encode each stretch: tokens, concatenated, int32; and the number of each stretch, int64 `[k]`."""
        bounds = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
        tokens, num = self._encode([block[a:b].decode("utf-8") for a, b in bounds])
        return np.array(tokens, dtype=np.int32), np.array(num, dtype=np.int64)


class _Kept:
    """Tokens of stretches by their numbers, in arrays that double."""

    def __init__(self) -> None:
        self._tokens = np.zeros(1 << 12, dtype=np.int32)
        self._first = np.zeros(1 << 12, dtype=np.int64)  # of the next stretch at the end
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, tokens: np.ndarray, num: np.ndarray) -> None:
        """Keep the tokens of the next stretches. Args: tokens, of all of them; num, of each."""
        begin, size = int(self._first[self._size]), self._size + len(num)
        self._tokens = _with_room(self._tokens, begin + len(tokens))
        self._first = _with_room(self._first, size + 1)
        self._tokens[begin : begin + len(tokens)] = tokens
        self._first[self._size + 1 : size + 1] = begin + np.cumsum(num)
        self._size = size

    def of(self, numbers: np.ndarray) -> _Found:
        """Return all tokens, and where those of each number begin, and how many they are."""
        first = self._first[numbers]
        return self._tokens[: self._first[self._size]], first, self._first[numbers + 1] - first


def _with_room(values: np.ndarray, size: int) -> np.ndarray:
    """Return the array, or a copy of at least twice its length if it is shorter than `size`."""
    if size <= len(values):
        return values
    more = np.zeros(max(size, 2 * len(values)), dtype=values.dtype)
    more[: len(values)] = values
    return more


def _block(data: bytes, start: int, ends: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Return the next block, up to its last cut, and all its cuts, with 0 and its length among them.

    Args: ends, places in the data where texts end; each is a cut.
    """
    size = _BLOCK_BYTES
    while True:
        block = data[start : start + size]
        is_cut = _is_cut(_kinds()[np.frombuffer(block, dtype=np.uint8)], ends - start)
        cuts = np.flatnonzero(is_cut) + 1
        if start + len(block) == len(data):
            return block, np.concatenate([[0], cuts, [len(block)]])
        if len(cuts):
            return block[: cuts[-1]], np.append(0, cuts)
        size *= 2


def _is_cut(kinds: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Mark bytes after which to cut, bool `[n - 1]`. Args: kinds, classes of the bytes `[n]`; ends, of texts."""
    here, after = kinds[:-1], kinds[1:]
    edges = ends[(ends > 0) & (ends < len(kinds))]
    cuts = (here <= _DIGIT) & (after <= _BLANK) & (here != after)
    cuts[:-1] |= (here[:-1] == _SIGN) & (after[:-1] == _SPACE) & (after[1:] <= _SIGN)
    # Where the byte before the last one decides: a sign belongs to the word after it unless it follows a sign or a
    # space, which take it; a line end is a piece of its own, or ends one, unless it follows white space.
    before, here, after = kinds[:-2], here[1:], after[1:]
    looks_back = (here == _SIGN) & (after == _LETTER) & ((before == _SIGN) | (before == _SPACE))
    looks_back |= (here == _LINE) & (after <= _SIGN) & (before <= _SIGN)
    looks_back[edges[edges < len(kinds) - 1] - 1] = False  # the byte before is of another text
    cuts[1:] |= looks_back
    cuts[edges - 1] = True
    return cuts


@cache
def _kinds() -> np.ndarray:
    """Table of the class of each byte value."""
    kinds = np.full(256, _OTHER, dtype=np.uint8)
    for one in map(chr, range(128)):
        kinds[ord(one)] = _LETTER if one.isalpha() else _DIGIT if one.isdigit() else _SIGN
    kinds[ord(" ")] = _SPACE
    kinds[ord("\n")] = _LINE
    kinds[[ord(one) for one in "\t\v\f\r\x1c\x1d\x1e\x1f"]] = _BLANK
    return kinds
