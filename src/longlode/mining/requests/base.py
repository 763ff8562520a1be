"""Base of requests: something to read of one document, by a reader with a given capability."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from longlode.core.errors import ModelError
from longlode.mining.reader import ENCODES, Capability

_MEMORY_WORDS = ("out of memory", "allocate memory")


@dataclass
class BatchSize:
    """Sizes of one call: `segments` of `alone`, `pairs` of `given`. Halved for good when memory runs out.

    It changes speed and memory, not results (beyond the rounding of the reader).
    """

    segments: int = 256
    pairs: int = 1024

    def halve(self) -> bool:
        """Halve both, down to 1. Returns: False when both are 1 already."""
        if self.segments == 1 and self.pairs == 1:
            return False
        self.segments = max(1, self.segments // 2)
        self.pairs = max(1, self.pairs // 2)
        return True

    def recovers(self, error: BaseException) -> bool:
        """True to try again after the error: memory ran out, and there was something to halve."""
        return is_out_of_memory(error) and self.halve()


@dataclass(frozen=True, eq=False, kw_only=True)
class Reading:
    """Result of one request.

    tokens_alone, tokens_given: number read by a model for it, from the start of a text and after a state.
    """

    tokens_alone: int = 0
    tokens_given: int = 0

    def numbers(self) -> tuple[np.ndarray, ...]:
        """All values in it that must be finite; else the document is "failed"."""
        return ()


class Request(ABC):
    """Something to read of one document.

    capability: of the reader that it needs; None without a reader. stage: names it in the reason of a document for
    which it failed; "reader" where the reader may be at fault instead of the document.
    """

    capability: ClassVar[Capability | None]
    stage: ClassVar[str] = "reader"

    @classmethod
    @abstractmethod
    def read(cls, reader: Any, requests: Sequence[Self], size: BatchSize) -> Sequence[Reading]:
        """Read requests of this type, those of several documents together.

        Args: reader, has the capability (None without one); requests, at least one; size, halved in place when memory
          runs out.
        Returns: one reading per request, in order. A reading must not depend on the other requests.
        Raises: anything; the engine then reads document by document, and those that fail alone have failed.
        """

    def shown_pairs(self, reading: Any, positions: np.ndarray) -> list[dict[str, Any]]:
        """Pairs to store with `keep_pairs`, as of `engine.parts.PAIRS_FIELD`; none for most requests.

        Args: reading, of this request; positions int `[S]`, the place in the document of each chosen segment.
        """
        return []


def reads_tokens(asks: Sequence[type[Request]]) -> bool:
    """True if any of these needs a reader, even if only for its tokens."""
    return any(kind.capability is not None for kind in asks)


def reads_model(asks: Sequence[type[Request]]) -> bool:
    """True if any of these needs more of a reader than its tokens."""
    return any(kind.capability not in (None, ENCODES) for kind in asks)


def check_reader(scorer: str, asks: Sequence[type[Request]], reader: Any) -> None:
    """Refuse a reader that lacks a capability which a scorer's requests need.

    Args: scorer, its name; asks, the types of its requests.
    Raises: ModelError that names the scorer, the capability and readers that have it.
    """
    for kind in asks:
        capability = kind.capability
        if capability is not None and (why := capability.why_not(reader)):
            raise ModelError(
                f"the scorer {scorer!r} asks for {kind.__name__}: a reader that can {capability.what}. "
                f"{type(reader).__name__} cannot: {why.rstrip('.')}. Those that can: {capability.who}. Use one of "
                "them, or another scorer."
            )


def is_out_of_memory(error: BaseException) -> bool:
    """True for MemoryError and the errors of torch and the operating system when memory runs out."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(words in text for words in _MEMORY_WORDS)


def check_shape(call: str, nll: np.ndarray, segments: np.ndarray) -> None:
    """Raises: ModelError when a call of the reader gave another shape than nats of tokens 1 to L - 1."""
    expected = (len(segments), segments.shape[1] - 1)
    if nll.shape != expected:
        raise ModelError(f"the reader's `{call}` gave shape {nll.shape}; expected {expected} (n, L - 1).")
