"""Requests of the attention over several segments."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from longlode.core.errors import ConfigError, ModelError
from longlode.mining.engine import pulse
from longlode.mining.reader import SHOWS_ATTENTION, AttendingReader, Capability
from longlode.mining.requests.base import BatchSize, Reading, Request


@dataclass(frozen=True, eq=False)
class WindowReading(Reading):
    """attention: one per window, float32 `[S_w, S_w]` as of `AttendingReader.attention`."""

    attention: tuple[np.ndarray, ...]

    def numbers(self) -> tuple[np.ndarray, ...]:
        """All of it."""
        return self.attention


@dataclass(frozen=True, eq=False)
class Windows(Request):
    """Windows of segments, each read in one pass for its attention.

    segments: int `[n, L]`, neighbours in the document. windows: int `[W, 2]`; rows first to stop - 1 of each.
    """

    capability: ClassVar[Capability | None] = SHOWS_ATTENTION
    segments: np.ndarray
    windows: np.ndarray

    def __post_init__(self) -> None:
        """Raises: ConfigError for a window that is empty or does not exist."""
        first, stop = self.windows.T
        if len(first) and (first.min() < 0 or stop.max() > len(self.segments) or (stop - first).min() < 1):
            raise ConfigError(
                f"windows lie within {first.min()}..{stop.max()}; expected 0..{len(self.segments)}, none of them empty."
            )

    @classmethod
    def read(cls, reader: AttendingReader, requests: Sequence[Self], size: BatchSize) -> list[WindowReading]:
        """Read window by window. Raises: whatever the reader raises; ModelError for a result of another shape."""
        found: list[WindowReading] = []
        for request in requests:
            pulse.read_part(len(found), len(requests))
            found.append(request._read(reader))
        return found

    def _read(self, reader: AttendingReader) -> WindowReading:
        shares = []
        for first, stop in self.windows:
            pulse.step()
            text = self.segments[first:stop].reshape(1, -1).astype(np.int64, copy=False)
            found = reader.attention(text)
            if found.shape != (1, stop - first, stop - first):
                raise ModelError(
                    f"the reader's `attention` gave shape {found.shape}; expected (1, S, S) with S = {stop - first}."
                )
            shares.append(found[0])
        num_segments = int((self.windows[:, 1] - self.windows[:, 0]).sum())
        return WindowReading(tuple(shares), tokens_alone=num_segments * self.segments.shape[1])
