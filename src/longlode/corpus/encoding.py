"""Texts to tokens: of any length, in bounded memory, and whatever a tokenizer does with them."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ParamSpec, TypeVar, cast

import numpy as np
import tokenizers

from longlode.core.errors import InputError
from longlode.corpus.encoded_pieces import EncodedPieces, piece_cutter

_PIECE_CHARACTERS = 1 << 20
_GROUP_CHARACTERS = 4 << 20
_MOST_IDS = 1 << 24  # the largest vocabularies in use have about a million tokens

_P = ParamSpec("_P")
_T = TypeVar("_T")


def guarded(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function of `tokenizers`.

    Raises: InputError when its native code panics, as Oniguruma does on runs of some ten million blanks: that comes
      as a BaseException, which passes every `except Exception`.
    """
    try:
        return call(*args, **kwargs)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise InputError(f"the tokenizer gave up on the text: {error}") from None


def vocabulary_size(tokenizer: tokenizers.Tokenizer) -> int:
    """One more than the largest token id, added tokens included.

    Raises: InputError for an id that no model has a row for. The package writes a tokenizer id by id from 0 on: with
      such an id it would take all memory, or lose every token without a word.
    """
    ids = tokenizer.get_vocab(with_added_tokens=True)
    token = max(ids, key=ids.__getitem__, default="")
    size = ids[token] + 1 if ids else 0
    if size > _MOST_IDS:
        raise InputError(
            f"The tokenizer gives the token {token!r} the id {size - 1:,}; expected ids below {_MOST_IDS:,}. Its "
            "tokenizer.json is damaged: bring back a sound copy."
        )
    return size


class TextEncoder:
    """A fast tokenizer as a copy that never cuts or pads. Numbers are those of `tokenizers`, without special tokens."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        """Copy it, whatever the original does later. Raises: InputError for ids that no model has rows for."""
        self.vocab_size = vocabulary_size(tokenizer)  # rows that a model's embedding must have
        self._inner = copy.deepcopy(tokenizer)
        self._inner.no_truncation()
        self._inner.no_padding()
        self._inner.encode_special_tokens = False
        self._marks = piece_cutter(self.to_str())
        self._pieces = EncodedPieces(self._each_of, self._whole)

    def to_str(self) -> str:
        """All that decides the tokens, as JSON."""
        return str(self._inner.to_str())

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Tokens of each text, int32, without special tokens, whatever its length.

        A text of more than 1,048,576 characters is cut before spaces and encoded in pieces, because a
        tokenizer needs some hundred bytes of working memory a token. For byte-level tokenizers that split
        words at spaces the tokens are those of the whole text; others may give another token at a cut. Lone
        surrogates become "?".

        Raises: InputError when the tokenizer gives up on a text.
        """
        if self._marks is None:
            return self._encode_plainly(texts)
        plain = [
            number
            for number, text in enumerate(texts)
            if any(mark in text for mark in self._marks) or _is_foreign(text)
        ]
        found = dict(zip(plain, self._encode_plainly([texts[number] for number in plain]), strict=True))
        return [
            found[number]
            if number in found
            else _joined(self._pieces.tokens(piece) for piece in _pieces(text))
            for number, text in enumerate(texts)
        ]

    def _each_of(self, texts: list[str]) -> tuple[list[int], list[int]]:
        """Tokens of some short texts, and the number of the text of each token; each call costs 10 us."""
        found = guarded(self._inner.encode, texts, is_pretokenized=True, add_special_tokens=False)
        return found.ids, cast(
            "list[int]", found.word_ids
        )  # None only for special tokens, which are not added

    def _whole(self, text: str) -> list[int]:
        (found,) = guarded(self._inner.encode_batch_fast, [text], add_special_tokens=False)
        ids: list[int] = found.ids
        return ids

    def _encode_plainly(self, texts: Sequence[str]) -> list[np.ndarray]:
        owners: list[int] = []
        pieces: list[str] = []
        for number, text in enumerate(texts):
            for piece in _pieces(text):
                owners.append(number)
                pieces.append(piece)
        tokens: list[list[np.ndarray]] = [[np.zeros(0, dtype=np.int32)] for _ in texts]
        for start, stop in _groups([len(piece) for piece in pieces]):
            encodings = guarded(self._inner.encode_batch_fast, pieces[start:stop], add_special_tokens=False)
            for owner, encoding in zip(owners[start:stop], encodings, strict=True):
                tokens[owner].append(np.array(encoding.ids, dtype=np.int32))
        return [np.concatenate(found) for found in tokens]


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    """One after the other, int32, in an array that grows where it lies: all parts and the whole are never held."""
    whole, used = np.zeros(0, dtype=np.int32), 0
    for part in parts:
        if used + len(part) > len(whole):
            whole.resize(used + len(part) + used // 8, refcheck=False)
        whole[used : used + len(part)] = part
        used += len(part)
    whole.resize(used, refcheck=False)
    return whole


def _is_foreign(text: str) -> bool:
    """Whether more than a fifth of it is not ASCII: there are few places to cut such a text at."""
    if text.isascii():
        return False
    starts = range(0, len(text), _PIECE_CHARACTERS)
    return sum(
        len(text[at : at + _PIECE_CHARACTERS].encode("utf-8", "surrogatepass")) for at in starts
    ) > 1.2 * len(text)


def _pieces(text: str) -> Iterator[str]:
    """Cut a long text before spaces into pieces of at most `_PIECE_CHARACTERS`."""
    start = 0
    while len(text) - start > _PIECE_CHARACTERS:
        stop = text.rfind(" ", start + 1, start + _PIECE_CHARACTERS)
        stop = stop if stop > 0 else start + _PIECE_CHARACTERS
        yield _encodable(text[start:stop])
        start = stop
    yield _encodable(text[start:])


def _encodable(text: str) -> str:
    """The text with "?" for each lone surrogate."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _groups(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Split a row of pieces into runs of about `_GROUP_CHARACTERS`, so that memory stays bounded."""
    start, total = 0, 0
    for stop, size in enumerate(sizes, 1):
        total += size
        if total >= _GROUP_CHARACTERS:
            yield start, stop
            start, total = stop, 0
    if start < len(sizes):
        yield start, len(sizes)
