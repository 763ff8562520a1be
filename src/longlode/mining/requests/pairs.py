"""Requests of segments alone and in pairs, in batches across documents and in bounded memory.

The segments of many documents are laid end to end and read in blocks. A block's states are used for every
pair whose source is in it and then dropped: a segment is read alone once, a source is never read twice, and no
more states are held than one block has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from longlode.core.errors import ConfigError
from longlode.mining.engine import pulse
from longlode.mining.reader import READS_PAIRS, READS_SEGMENTS, Capability, PairReader, SegmentReader
from longlode.mining.requests.base import BatchSize, Reading, Request, check_shape


@dataclass(frozen=True, eq=False)
class SegmentReading(Reading):
    """alone: float32 `[n, L - 1]`, nats of tokens 1 to L - 1 of each segment."""

    alone: np.ndarray

    def numbers(self) -> tuple[np.ndarray, ...]:
        """All of them."""
        return (self.alone,)


@dataclass(frozen=True, eq=False)
class Segments(Request):
    """Segments read alone. segments: int `[n, L]`."""

    capability: ClassVar[Capability | None] = READS_SEGMENTS
    segments: np.ndarray

    @classmethod
    def read(cls, reader: SegmentReader, requests: Sequence[Self], size: BatchSize) -> list[SegmentReading]:
        """Read them in blocks of `size.segments`. Raises: as `read_blocks`."""
        none = np.zeros(0, dtype=np.int64)
        segments = _joined([request.segments for request in requests])
        alone, _ = read_blocks(reader, segments, none, none, size)
        ends = np.cumsum([len(request.segments) for request in requests])[:-1]
        return [SegmentReading(part, tokens_alone=part.size + len(part)) for part in np.split(alone, ends)]


@dataclass(frozen=True, eq=False)
class PairReading(Reading):
    """Result of `Pairs`.

    targets, sources: int `[P]`, those of the request. given: float32 `[P, L - 1]`, nats of each pair's target after its
    source. alone: float32 `[n, L - 1]`, of each segment; NaN where it was not read. rows: int, those that were.
    """

    targets: np.ndarray
    sources: np.ndarray
    alone: np.ndarray
    given: np.ndarray
    rows: np.ndarray

    def numbers(self) -> tuple[np.ndarray, ...]:
        """All values that were read."""
        return self.alone[self.rows], self.given


@dataclass(frozen=True, eq=False)
class Pairs(Request):
    """Pairs of segments: `targets[p]` is read after `sources[p]`, and every segment of a pair alone.

    segments: int `[n, L]`, such as `doc.tokens`, or `doc.segments` with those of other documents last. targets,
    sources: int `[P]`, rows of them. unpaired: read alone also segments that are in no pair.
    """

    capability: ClassVar[Capability | None] = READS_PAIRS
    segments: np.ndarray
    targets: np.ndarray
    sources: np.ndarray
    unpaired: bool = False

    def __post_init__(self) -> None:
        """Raises: ConfigError for vectors that do not match, and for pairs of segments that do not exist."""
        if self.targets.ndim != 1 or self.sources.shape != self.targets.shape:
            raise ConfigError(
                f"pairs have targets of shape {self.targets.shape} and sources of {self.sources.shape}; expected "
                "vectors of one length."
            )
        check_rows("pairs", np.concatenate([self.targets, self.sources]), len(self.segments))

    @classmethod
    def read(cls, reader: PairReader, requests: Sequence[Self], size: BatchSize) -> list[PairReading]:
        """Read the pairs of all requests together. Raises: as `read_blocks`."""
        rows = [request._rows() for request in requests]
        segments = _joined([request.segments[kept] for request, kept in zip(requests, rows, strict=True)])
        firsts = np.cumsum([0, *(len(kept) for kept in rows)])
        targets = _places([request.targets for request in requests], rows, firsts)
        sources = _places([request.sources for request in requests], rows, firsts)
        alone, given = read_blocks(reader, segments, targets, sources, size)
        ends = np.cumsum([len(request.targets) for request in requests])[:-1]
        parts = zip(requests, rows, np.split(alone, firsts[1:-1]), np.split(given, ends), strict=True)
        return [request._reading(kept, *of_request) for request, kept, *of_request in parts]

    def shown_pairs(self, reading: Any, positions: np.ndarray) -> list[dict[str, Any]]:
        """The pairs inside the document; one with a segment of another document has no place in it."""
        alone = reading.alone.mean(axis=1, dtype=np.float64)
        given = reading.given.mean(axis=1, dtype=np.float64)
        return [
            {
                "i": int(positions[target]),
                "j": int(positions[source]),
                "nll_alone": float(alone[target]),
                "nll_given": float(given[pair]),
            }
            for pair, (target, source) in enumerate(zip(self.targets, self.sources, strict=True))
            if target < len(positions) and source < len(positions)
        ]

    def _rows(self) -> np.ndarray:
        """Rows of the segments to read, ascending."""
        if self.unpaired:
            return np.arange(len(self.segments))
        return np.unique(np.concatenate([self.targets, self.sources]))

    def _reading(self, rows: np.ndarray, alone: np.ndarray, given: np.ndarray) -> PairReading:
        length = self.segments.shape[1]
        whole = np.full((len(self.segments), length - 1), np.nan, dtype=np.float32)
        whole[rows] = alone
        return PairReading(
            self.targets,
            self.sources,
            whole,
            given,
            rows,
            tokens_alone=len(rows) * length,
            tokens_given=len(given) * length,
        )


def check_rows(what: str, rows: np.ndarray, limit: int) -> None:
    """Raises: ConfigError when a row is none of the `limit` segments."""
    if rows.size and (rows.min() < 0 or rows.max() >= limit):
        raise ConfigError(f"{what} name segments {rows.min()}..{rows.max()}; expected 0..{limit - 1}.")


def read_blocks(
    reader: Any, segments: np.ndarray, targets: np.ndarray, sources: np.ndarray, size: BatchSize
) -> tuple[np.ndarray, np.ndarray]:
    """Read every segment alone and every pair.

    Args: reader, a PairReader, or a SegmentReader where there are no pairs; segments int64 `[n, L]`; targets, sources
      int `[P]`, rows of them; size, halved in place when the reader runs out of memory.
    Returns: alone float32 `[n, L - 1]`, given float32 `[P, L - 1]`.
    Raises: whatever the reader raises, out-of-memory errors once a batch of one does not fit; ModelError
      when a result has another shape than the protocol says.
    """
    by_source = np.argsort(sources, kind="stable")
    scored = segments.shape[1] - 1
    alone = np.empty((len(segments), scored), dtype=np.float32)
    given = np.empty((len(sources), scored), dtype=np.float32)
    start = 0
    while start < len(segments):
        stop = min(start + size.segments, len(segments))
        low, high = np.searchsorted(sources[by_source], [start, stop])
        pairs = by_source[low:high]
        pulse.step()
        states: Any = None
        try:
            nll, states = reader.alone(segments[start:stop])
            check_shape("alone", nll, segments[start:stop])
            alone[start:stop] = nll
            pulse.read_part(stop + low, len(segments) + len(sources))
            for first in range(0, len(pairs), size.pairs):
                batch = pairs[first : first + size.pairs]
                nll = reader.given(states, sources[batch] - start, segments[targets[batch]])
                check_shape("given", nll, segments[targets[batch]])
                given[batch] = nll
                pulse.read_part(stop + low + first + len(batch), len(segments) + len(sources))
        except (MemoryError, RuntimeError, OSError) as error:
            if not size.recovers(error):
                raise
            continue  # this block again, smaller; the failed call's tensors die with `error`
        finally:
            states = None  # before the next block asks for its own
        start = stop
    return alone, given


def _joined(segments: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(segments).astype(np.int64, copy=False)


def _places(named: Sequence[np.ndarray], rows: Sequence[np.ndarray], firsts: np.ndarray) -> np.ndarray:
    """Places of segments once those of all requests are laid end to end.

    Args: named, of each request, rows of its segments; rows, those of its segments that are read, ascending; firsts,
      where they begin.
    """
    each = zip(named, rows, firsts[:-1], strict=True)
    return np.concatenate([np.searchsorted(kept, wanted) + first for wanted, kept, first in each])
