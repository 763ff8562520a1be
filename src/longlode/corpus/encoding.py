"""Encoding of texts of any length to tokens, in bounded memory."""

import copy
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ParamSpec, TypeVar, cast

import numpy as np
import tokenizers

from longlode.core.errors import InputError
from longlode.corpus.encoded_pieces import EncodedPieces, piece_cutter

_PIECE_CHARACTERS = 1 << 20
_GROUP_CHARACTERS = 4 << 20
_MOST_IDS = 1 << 24  # the largest vocabularies in use have about a million tokens

_WORD = re.compile(" ?[A-Za-z]+")
_MARKED_SPACE = "\u0120"
"""The letter that a byte-level tokenizer has for the space."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


def guarded(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function of `tokenizers`, turning panics of its native code into errors.

    Raises: InputError when the native code panics, as Oniguruma does on runs of some ten million blanks: a panic is
      raised as a BaseException, which passes every `except Exception`.
    """
    try:
        return call(*args, **kwargs)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise InputError(f"the tokenizer gave up on the text: {error}") from None


def vocabulary_size(tokenizer: tokenizers.Tokenizer) -> int:
    """Return one more than the largest token id, added tokens included.

    Raises: InputError for an id beyond any model's vocabulary. The package writes a tokenizer id by id from 0 on: with
      such an id it would use all memory, or silently lose every token.
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
    """A copy of a fast tokenizer that never truncates or pads. It gives the tokens of `tokenizers`, no special ones."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, *, special_as_text: bool = False) -> None:
        """Copy the tokenizer. Args: special_as_text, encode text that spells a special token as plain text.

        Raises: InputError as `vocabulary_size`.
        """
        self.vocab_size = vocabulary_size(tokenizer)  # rows that a model's embedding must have
        self._inner = copy.deepcopy(tokenizer)
        self._inner.no_truncation()
        self._inner.no_padding()
        self._inner.encode_special_tokens = special_as_text
        self._marks = piece_cutter(self.to_str())
        self._pieces = EncodedPieces(self._each_of, self._whole)

    def to_str(self) -> str:
        """Return the tokenizer as JSON."""
        return str(self._inner.to_str())

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode texts of any length; int32 `[n]` for each, without special tokens.

        A text of more than 1,048,576 characters is cut before spaces and encoded in pieces, because a
        tokenizer needs some hundred bytes of working memory per token. For byte-level tokenizers that split
        words at spaces the tokens are those of the whole text; others may give a different token at a cut. Lone
        surrogates become "?".

        Raises: InputError when the tokenizer gives up on a text.
        """
        if self._marks is None:
            return self._encode_plainly(texts)
        plain = [number for number, text in enumerate(texts) if not self.caches(text)]
        found = dict(zip(plain, self._encode_plainly([texts[number] for number in plain]), strict=True))
        return [
            found[number]
            if number in found
            else _joined(self._pieces.tokens(piece) for piece in _pieces(text))
            for number, text in enumerate(texts)
        ]

    def caches(self, text: str) -> bool:
        """Return True if the text is encoded through the cache of pieces, several times as fast as without."""
        if self._marks is None:
            return False
        return not any(mark in text for mark in self._marks) and not _has_few_cuts(text)

    def encode_pieces(self, pieces: Iterable[str]) -> np.ndarray:
        """Encode a text that `caches`, given in pieces whose tokens may be concatenated; int32 `[n]`."""
        return _joined(self._pieces.tokens(piece) for piece in pieces)

    def encode_short(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode texts that `caches`, all at once; int32 `[n]` for each."""
        return self._pieces.tokens_of(texts)

    def _each_of(self, texts: list[str]) -> tuple[list[int], list[int]]:
        """Encode some short texts: tokens, concatenated, and how many each has.

        A word goes to the tokenizer's model as it is: it is one piece by every pattern that `token_cuts` knows, and its
        letters stand for themselves. That takes a third of the time of splitting it and mapping its bytes.
        """
        is_word = [_WORD.fullmatch(text) is not None for text in texts]
        words = itertools.compress(texts, is_word)
        tokens = guarded(_encode_words, self._inner.model, words)
        others = [text for text, plain in zip(texts, is_word, strict=True) if not plain]
        found = guarded(self._inner.encode, others, is_pretokenized=True, add_special_tokens=False)
        # None only for special tokens, which are not added.
        owners = np.array(cast("list[int]", found.word_ids), dtype=np.int64)
        ids, stops = found.ids, np.bincount(owners, minlength=len(others)).cumsum().tolist()
        rest = (ids[start:stop] for start, stop in itertools.pairwise([0, *stops]))
        each = [next(tokens) if plain else next(rest) for plain in is_word]
        return list(itertools.chain.from_iterable(each)), list(map(len, each))

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


def _encode_words(model: tokenizers.models.Model, words: Iterable[str]) -> Iterator[list[int]]:
    """Encode words of ASCII letters, with a space before them or none."""
    tokenize = model.tokenize
    marked = (_MARKED_SPACE + word[1:] if word[0] == " " else word for word in words)
    return iter([[token.id for token in tokenize(word)] for word in marked])


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Concatenate int32 arrays into one that grows in place: parts and whole are never held together."""
    whole, used = np.zeros(0, dtype=np.int32), 0
    for part in parts:
        if used + len(part) > len(whole):
            whole.resize(used + len(part) + used // 8, refcheck=False)
        whole[used : used + len(part)] = part
        used += len(part)
    whole.resize(used, refcheck=False)
    return whole


def _has_few_cuts(text: str) -> bool:
    """Return True if more than a fifth of the text is not ASCII, so that it has few places to cut at."""
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
    """Replace each lone surrogate by "?"."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _groups(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Split a list of pieces into runs of about `_GROUP_CHARACTERS`, so that memory stays bounded."""
    start, total = 0, 0
    for stop, size in enumerate(sizes, 1):
        total += size
        if total >= _GROUP_CHARACTERS:
            yield start, stop
            start, total = stop, 0
    if start < len(sizes):
        yield start, len(sizes)
