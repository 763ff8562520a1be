"""Readers: a language model as mining uses it, and all that mining knows of one."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np


class Reader(Protocol):
    """A language model behind three calls; numpy at the boundary, so that mining needs no torch.

    A reader may split a call into batches of its own; it must not change what a row means, and a row of a
    result depends on that row's arguments alone (up to rounding).
    """

    @property
    def fingerprint(self) -> str:
        """Name of model, tokenizer and dtype together: two readers of one fingerprint give the same
        numbers.
        """
        ...

    def encode(self, texts: Sequence[str]) -> Sequence[Sequence[int] | np.ndarray]:
        """Token ids of each text, without special tokens."""
        ...

    def alone(self, segments: np.ndarray) -> tuple[np.ndarray, Any]:
        """Read every segment with nothing before it.

        Args: segments int64 `[n, L]`.
        Returns: nll float32 `[n, L - 1]`, nats of tokens 1..L-1 (the first is never scored); and the states
          after each segment, opaque, good only for `given`.
        """
        ...

    def given(self, states: Any, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Read every target after the source segment whose state is at hand: no source is read a second time.

        Args: states from `alone`; sources int `[p]`, rows of that `alone` call; targets int64 `[p, L]`.
        Returns: nll float32 `[p, L - 1]`, nats of the same tokens 1..L-1 as `alone` scores.
        """
        ...


class AttendingReader(Reader, Protocol):
    """A reader that also tells where its attention goes; only scorers with `needs_windows` ask for it."""

    def attention(self, texts: np.ndarray) -> np.ndarray:
        """Read every text in one pass.

        Args: texts int64 `[n, S L]`, S segments of L tokens each.
        Returns: float32 `[n, S, S]`: `[:, i, j]` is the share of the attention in segment i that goes to segment j,
          mean over layers, heads and tokens; 0 for j > i, rows sum to 1.
        """
        ...


class ContinuingReader(Reader, Protocol):
    """A reader that also reads on, segment after segment; only plans with `continues` ask for it."""

    def continued(self, states: Any, sources: np.ndarray, segments: np.ndarray) -> tuple[np.ndarray, Any]:
        """Read every segment after all that its state has read.

        Args: states from `alone` or `continued`; sources int `[n]`, rows of that call; segments int64 `[n, L]`.
        Returns: as `alone`; row r of the new states has read what state `sources[r]` had and then `segments[r]`.
        """
        ...


@runtime_checkable
class ThreadedReader(Protocol):
    """A reader that computes in threads. Sums of another number of threads round otherwise, so it is told how many."""

    def use_threads(self, count: int) -> None:
        """Read in `count` threads from now on, whatever this process is set to."""
        ...
