"""Requests of the text itself: its tokens, its words, the whole of it read by a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from longlode.core.errors import ModelError
from longlode.corpus.words import split_words
from longlode.mining.engine import pulse
from longlode.mining.reader import ENCODES, READS_WHOLE_TEXTS, Capability, Reader, WholeTextReader
from longlode.mining.requests.base import BatchSize, Reading, Request


@dataclass(frozen=True, eq=False)
class TokenReading(Reading):
    """tokens: int32 `[n]`, without special tokens."""

    tokens: np.ndarray


@dataclass(frozen=True, eq=False)
class Tokens(Request):
    """The tokens of a text. The engine itself asks for them where a scorer `asks` for anything of a reader: they are
    the document's `all_tokens`, and `tokens` in segments.
    """

    capability: ClassVar[Capability | None] = ENCODES
    stage: ClassVar[str] = "tokens"
    text: str

    @classmethod
    def read(cls, reader: Reader, requests: Sequence[Self], size: BatchSize) -> list[TokenReading]:
        """Encode all texts in one call. Raises: ModelError for another number of results than texts."""
        found = reader.encode([request.text for request in requests])
        if len(found) != len(requests):
            raise ModelError(
                f"the reader's `encode` gave {len(found)} token lists for {len(requests)} texts."
            )
        return [TokenReading(np.asarray(tokens, dtype=np.int32)) for tokens in found]


@dataclass(frozen=True, eq=False)
class WordReading(Reading):
    """kept: the result of the request's `keep` on the text."""

    kept: Any


@dataclass(frozen=True, eq=False)
class Words(Request):
    """The words of a text, or the result of `keep` on the text, which is dropped afterwards, so keep little."""

    capability: ClassVar[Capability | None] = None
    stage: ClassVar[str] = "words"
    text: str
    keep: Callable[[str], Any] = split_words

    @classmethod
    def read(cls, reader: None, requests: Sequence[Self], size: BatchSize) -> list[WordReading]:
        """Read text by text; no reader."""
        found = []
        for request in requests:
            pulse.step()
            found.append(WordReading(request.keep(request.text)))
        return found


@dataclass(frozen=True, eq=False)
class WholeTextReading(Reading):
    """nll: float32 `[n - 1]`, nats of tokens 1 to n - 1, each after all earlier ones."""

    nll: np.ndarray

    def numbers(self) -> tuple[np.ndarray, ...]:
        """The nats."""
        return (self.nll,)


@dataclass(frozen=True, eq=False)
class WholeText(Request):
    """A text read from its beginning to its end, such as `doc.all_tokens`. tokens: int `[n]`, n >= 1."""

    capability: ClassVar[Capability | None] = READS_WHOLE_TEXTS
    tokens: np.ndarray

    @classmethod
    def read(
        cls, reader: WholeTextReader, requests: Sequence[Self], size: BatchSize
    ) -> list[WholeTextReading]:
        """Read text by text. Raises: ModelError for a result of another shape."""
        found: list[WholeTextReading] = []
        for request in requests:
            pulse.step()
            pulse.read_part(len(found), len(requests))
            nll = reader.whole(request.tokens.astype(np.int64, copy=False))
            if nll.shape != (len(request.tokens) - 1,):
                raise ModelError(
                    f"the reader's `whole` gave shape {nll.shape}; expected {(len(request.tokens) - 1,)} (n - 1)."
                )
            found.append(WholeTextReading(nll, tokens_alone=len(request.tokens)))
        return found
