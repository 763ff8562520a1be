"""Readers: language models as mining uses them, and their capabilities.

Every reader encodes texts; each other ability is a capability, a protocol of its own. Arguments and results are numpy
arrays, so that mining needs no torch. A reader may split a call into batches of its own; a row of a result depends on
that row's arguments alone (up to rounding).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Reader(Protocol):
    """The base of all readers, which encodes texts."""

    @property
    def fingerprint(self) -> str:
        """Name of model, tokenizer and dtype together: two readers of one fingerprint give the same
        numbers.
        """
        ...

    def encode(self, texts: Sequence[str]) -> Sequence[Sequence[int] | np.ndarray]:
        """Token ids of each text, without special tokens."""
        ...


@runtime_checkable
class SegmentReader(Reader, Protocol):
    """A reader that reads segments alone."""

    def alone(self, segments: np.ndarray) -> tuple[np.ndarray, Any]:
        """Read every segment with nothing before it.

        Args: segments int64 `[n, L]`.
        Returns: nll float32 `[n, L - 1]`, nats of tokens 1..L-1 (the first is never scored); and the states
          after each segment, opaque, good only for `given` and `continued`.
        """
        ...


@runtime_checkable
class PairReader(SegmentReader, Protocol):
    """A reader that reads a segment after another one."""

    def given(self, states: Any, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Read every target after the source segment whose state is at hand: no source is read a second time.

        Args: states from `alone`; sources int `[p]`, rows of that `alone` call; targets int64 `[p, L]`.
        Returns: nll float32 `[p, L - 1]`, nats of the same tokens 1..L-1 as `alone` scores.
        """
        ...


@runtime_checkable
class ContinuingReader(SegmentReader, Protocol):
    """A reader that reads on from a state, segment after segment."""

    def continued(self, states: Any, sources: np.ndarray, segments: np.ndarray) -> tuple[np.ndarray, Any]:
        """Read every segment after all that its state has read.

        Args: states from `alone` or `continued`; sources int `[n]`, rows of that call; segments int64 `[n, L]`.
        Returns: as `alone`; row r of the new states has read what state `sources[r]` had and then `segments[r]`.
        """
        ...


@runtime_checkable
class AttendingReader(Reader, Protocol):
    """A reader that shows its attention over a text."""

    def attention(self, texts: np.ndarray) -> np.ndarray:
        """Read every text in one pass.

        Args: texts int64 `[n, S L]`, S segments of L tokens each.
        Returns: float32 `[n, S, S]`: `[:, i, j]` is the share of the attention in segment i that goes to segment j,
          mean over layers, heads and tokens; 0 for j > i, rows sum to 1.
        """
        ...


@runtime_checkable
class WholeTextReader(Reader, Protocol):
    """A reader that reads a text of any length from its beginning to its end."""

    def whole(self, tokens: np.ndarray) -> np.ndarray:
        """Read a text, every token after all that stand before it.

        Args: tokens int64 `[n]`, n >= 1.
        Returns: nll float32 `[n - 1]`, nats of tokens 1..n-1.
        """
        ...


@runtime_checkable
class ThreadedReader(Protocol):
    """A reader that computes in threads. Sums round differently with another number of threads, so it is set."""

    def use_threads(self, count: int) -> None:
        """Read in `count` threads from now on, whatever this process is set to."""
        ...


@runtime_checkable
class SelectiveReader(Protocol):
    """A reader that has the methods of a capability which its model may still lack."""

    def lacks(self, protocol: type) -> str:
        """Reason why it lacks the capability of a protocol; "" if it can."""
        ...


@dataclass(frozen=True)
class Capability:
    """An ability that a reader has or lacks.

    protocol: the calls that it takes, runtime-checkable. what: in words, after "can": "read pairs of segments". who:
    the readers that have it, for the error about one that lacks it.
    """

    protocol: type
    what: str
    who: str

    def why_not(self, reader: Any) -> str:
        """Reason why the reader cannot do it; "" if it can."""
        if not isinstance(reader, self.protocol):
            calls = (name for name in dir(self.protocol) if not name.startswith("_"))
            missing = [f"`{name}`" for name in calls if not hasattr(reader, name)]
            return f"it has no {' and no '.join(missing) or self.protocol.__name__}"
        return reader.lacks(self.protocol) if isinstance(reader, SelectiveReader) else ""


_MODELS = "any causal language model (`LMReader`)"
ENCODES = Capability(Reader, "encode texts", "every reader")
READS_SEGMENTS = Capability(SegmentReader, "read segments alone", _MODELS)
READS_PAIRS = Capability(PairReader, "read pairs of segments", _MODELS)
CONTINUES = Capability(ContinuingReader, "read on from a state", _MODELS)
SHOWS_ATTENTION = Capability(
    AttendingReader,
    "show its attention",
    "models with a layer of full attention, such as facebook/opt-350m, Llama, or a longlode model with the letter A "
    "among its mixers",
)
READS_WHOLE_TEXTS = Capability(WholeTextReader, "read whole texts", _MODELS)
