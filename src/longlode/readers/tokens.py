"""Texts to tokens for scoring: of any length, in bounded memory, with or without the model they belong to."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from longlode.core.errors import ModelError
from longlode.core.fingerprints import fingerprint
from longlode.readers.encoded_pieces import EncodedPieces, piece_cutter

_PIECE_CHARACTERS = 1 << 20
_GROUP_CHARACTERS = 16 << 20


class TextEncoder:
    """The fast tokenizer inside a transformers tokenizer, as a copy that never cuts or pads.

    Raises: ModelError when there is no fast tokenizer inside.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Copy what is inside, whatever the original does later."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError(
                f"{type(tokenizer).__name__} has no fast tokenizer inside. Save one beside the model as "
                "tokenizer.json."
            )
        self._inner = copy.deepcopy(backend)
        self._inner.no_truncation()
        self._inner.no_padding()
        self._marks = piece_cutter(self.to_str())
        self._pieces = EncodedPieces(self._each_of, self._whole)

    @property
    def vocab_size(self) -> int:
        """Tokens that it knows, added ones included."""
        return int(self._inner.get_vocab_size())

    def to_str(self) -> str:
        """All that decides the tokens, as JSON."""
        return str(self._inner.to_str())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text, without special tokens, whatever its length.

        A text of more than 1,048,576 characters is cut before spaces and encoded in pieces, because a
        tokenizer needs some hundred bytes of working memory a token. For byte-level tokenizers that split
        words at spaces the tokens are those of the whole text; others may give another token at a cut. Lone
        surrogates become "?".
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
            else np.concatenate([self._pieces.tokens(piece) for piece in _pieces(text)]).tolist()
            for number, text in enumerate(texts)
        ]

    def _each_of(self, texts: list[str]) -> tuple[list[int], list[int]]:
        """Tokens of some short texts, and the number of the text of each token; each call costs 10 us."""
        found = self._inner.encode(texts, is_pretokenized=True, add_special_tokens=False)
        return found.ids, found.word_ids

    def _whole(self, text: str) -> list[int]:
        (found,) = self._inner.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = found.ids
        return ids

    def _encode_plainly(self, texts: Sequence[str]) -> list[list[int]]:
        owners: list[int] = []
        pieces: list[str] = []
        for number, text in enumerate(texts):
            for piece in _pieces(text):
                owners.append(number)
                pieces.append(piece)
        tokens: list[list[int]] = [[] for _ in texts]
        for start, stop in _groups([len(piece) for piece in pieces]):
            encodings = self._inner.encode_batch_fast(pieces[start:stop], add_special_tokens=False)
            for owner, encoding in zip(owners[start:stop], encodings, strict=True):
                tokens[owner].extend(encoding.ids)
        return tokens


def _is_foreign(text: str) -> bool:
    """Whether more than a fifth of it is not ASCII: there are few places to cut such a text at."""
    return not text.isascii() and len(text.encode("utf-8", "surrogatepass")) > 1.2 * len(text)


class TokenReader:
    """The tokens of a model, which is not loaded: a reader for scores that need no more.

    The fingerprint names the tokenizer alone: readers that share one give the same results here.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Args: tokenizer, a transformers tokenizer with a fast one inside."""
        self.tokenizer = tokenizer
        self._encoder = TextEncoder(tokenizer)

    @cached_property
    def fingerprint(self) -> str:
        """Names the tokenizer; the same on every machine."""
        return fingerprint({"tokenizer": self._encoder.to_str()})

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `TextEncoder.encode`; the tokens are those of `LMReader` with the same tokenizer."""
        return self._encoder.encode(texts)

    def alone(self, segments: np.ndarray) -> NoReturn:
        """Raises: ModelError, as there is no model."""
        raise ModelError(_NO_MODEL)

    def given(self, states: Any, sources: np.ndarray, targets: np.ndarray) -> NoReturn:
        """Raises: ModelError, as there is no model."""
        raise ModelError(_NO_MODEL)


@dataclass(frozen=True)
class TokenReaderSpec:
    """What it takes to load a `TokenReader`; picklable. path_or_id: folder or hub id of the reader."""

    path_or_id: str

    def __call__(self) -> TokenReader:
        """Load the tokenizer, nothing else. Raises: ModelError that says what is missing."""
        from longlode.readers.source import load_reader_tokenizer

        return TokenReader(load_reader_tokenizer(self.path_or_id))


_NO_MODEL = "this reader was loaded without its model, to give tokens only. Load an LMReader to read with it."


def _pieces(text: str) -> Iterator[str]:
    """Cut a long text before spaces into pieces of at most `_PIECE_CHARACTERS`."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    start = 0
    while len(text) - start > _PIECE_CHARACTERS:
        stop = text.rfind(" ", start + 1, start + _PIECE_CHARACTERS)
        stop = stop if stop > 0 else start + _PIECE_CHARACTERS
        yield text[start:stop]
        start = stop
    yield text[start:]


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
