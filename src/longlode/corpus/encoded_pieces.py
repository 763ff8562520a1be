"""Tokenization through a cache of encoded pieces: the same tokens, two to seven times faster on ASCII text.

A byte-level BPE first splits a text by a pattern and then encodes each piece alone, so the tokens of a piece can be
cached. `tokenizers` does so, but its split takes most of the time. Here the text is cut by bytes, at positions where
the pattern cuts as well: right after a run of ASCII letters or digits that ends at ASCII of another class, and between
a sign and a single space. The stretch between two such positions is encoded once, and then found by its hash
(`core.spans`).
"""

import itertools
import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from longlode.core.distinct import distinct
from longlode.core.spans import ForkGuard, SpanTable
from longlode.core.token_cuts import splits_at_runs

_BLOCK_BYTES = 1 << 17
_LONG_BYTES = 48
"""Longest stretch that is cached (bytes); longer ones hardly repeat."""
_KEPT_PIECES = 1 << 18
_LETTER, _DIGIT, _SIGN, _SPACE, _BLANK, _OTHER = range(6)
"""Classes of bytes: ASCII except the last; blank is white space other than the space."""
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
        """Args: encode, a function from texts to their tokens, concatenated, and the index of the text of each token;
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
        self._table = SpanTable()
        self._tokens = np.zeros(0, dtype=np.int32)
        self._first = np.zeros(1, dtype=np.int64)

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
                block, cuts = _block(data, start)
                first, last = np.searchsorted(ends, [start, start + len(block)])
                edges = np.concatenate([[0], ends[first:last] - start, [len(block)]])
                tokens, num = self._block_tokens(block, cuts, edges)
                found.append(tokens)
                counts[first : last + 1] += num[: len(texts) - first]
                start += len(block)
                if len(self._table) > _KEPT_PIECES:
                    self._forget()
        return np.split(np.concatenate(found), np.cumsum(counts)[:-1])

    def _block_tokens(
        self, block: bytes, cuts: np.ndarray, edges: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encode a block: its tokens, int32 `[n]`, and how many lie between one edge and the next, int64.

        Args: cuts, where the pattern cuts; edges, int `[e]`, 0, the ends of texts, and the end of the block.
        """
        cuts = distinct(np.concatenate([cuts, edges]))  # whatever the pattern would do there
        starts, stops = cuts[:-1], cuts[1:]
        short = stops - starts <= _LONG_BYTES
        if (stops - starts)[short].sum() < _KEPT_SHARE * len(block):
            ends = edges.tolist()
            parts = [self._encode_whole(block[a:b].decode("utf-8")) for a, b in itertools.pairwise(ends)]
            tokens = np.concatenate([np.array(part, dtype=np.int32) for part in parts])
            return tokens, np.array([len(part) for part in parts])
        numbers = self._numbers(block, starts[short], stops[short])
        first, num = np.zeros(len(starts), dtype=np.int64), np.zeros(len(starts), dtype=np.int64)
        first[short], num[short] = self._first[numbers], self._first[numbers + 1] - self._first[numbers]
        pool, rest = self._tokens, np.flatnonzero(~short)
        if len(rest):
            others, num[rest] = self._each(block, starts[rest], stops[rest])
            first[rest] = len(pool) + np.cumsum(num[rest]) - num[rest]
            pool = np.concatenate([pool, others])
        stop = np.cumsum(num)
        tokens = pool[np.repeat(first - (stop - num), num) + np.arange(stop[-1] if len(stop) else 0)]
        return tokens, np.diff(np.append(0, stop)[np.searchsorted(cuts, edges)])

    def _numbers(self, block: bytes, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        numbers, new = self._table.numbers(np.frombuffer(block, dtype=np.uint8), starts, stops)
        if len(new):
            tokens, num = self._each(block, starts[new], stops[new])
            self._tokens = np.concatenate([self._tokens, tokens])
            self._first = np.append(self._first, self._first[-1] + np.cumsum(num))
        return numbers

    def _each(self, block: bytes, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Encode each stretch: tokens, concatenated, int32; and the number of each stretch, int64 `[k]`."""
        bounds = zip(starts.tolist(), stops.tolist(), strict=True)
        tokens, owners = self._encode([block[a:b].decode("utf-8") for a, b in bounds])
        return np.array(tokens, dtype=np.int32), np.bincount(
            np.array(owners, dtype=np.int64), minlength=len(starts)
        )


def _block(data: bytes, start: int) -> tuple[bytes, np.ndarray]:
    """Return the next block, up to its last cut, and all its cuts, with 0 and its length among them."""
    size = _BLOCK_BYTES
    while True:
        block = data[start : start + size]
        kinds = _kinds()[np.frombuffer(block, dtype=np.uint8)]
        here, after = kinds[:-1], kinds[1:]
        is_cut = (here <= _DIGIT) & (after <= _BLANK) & (here != after)
        is_cut[:-1] |= (here[:-1] == _SIGN) & (after[:-1] == _SPACE) & (after[1:] <= _SIGN)
        cuts = np.flatnonzero(is_cut) + 1
        if start + len(block) == len(data):
            return block, np.concatenate([[0], cuts, [len(block)]])
        if len(cuts):
            return block[: cuts[-1]], np.append(0, cuts)
        size *= 2


@cache
def _kinds() -> np.ndarray:
    """Table of the class of each byte value."""
    kinds = np.full(256, _OTHER, dtype=np.uint8)
    for one in map(chr, range(128)):
        kinds[ord(one)] = _LETTER if one.isalpha() else _DIGIT if one.isdigit() else _SIGN
    kinds[ord(" ")] = _SPACE
    kinds[[ord(one) for one in "\t\n\v\f\r\x1c\x1d\x1e\x1f"]] = _BLANK
    return kinds
