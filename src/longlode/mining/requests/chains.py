"""Requests of several segments in a row. The chains of all documents advance together, one segment per step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from longlode.core.errors import ConfigError
from longlode.mining.engine import pulse
from longlode.mining.reader import CONTINUES, Capability, ContinuingReader
from longlode.mining.requests.base import BatchSize, Reading, Request, check_shape
from longlode.mining.requests.pairs import check_rows


@dataclass(frozen=True, eq=False)
class ChainReading(Reading):
    """given: one per chain, float32 `[m - 1, L - 1]`, nats of its second to last segment, each after all before it."""

    given: tuple[np.ndarray, ...]

    def numbers(self) -> tuple[np.ndarray, ...]:
        """All of them."""
        return self.given


@dataclass(frozen=True, eq=False)
class Chains(Request):
    """Chains of segments: each is read after all the earlier ones of its chain.

    segments: int `[n, L]`. chains: rows of them, int `[m]` each, m >= 2, in reading order.
    """

    capability: ClassVar[Capability | None] = CONTINUES
    segments: np.ndarray
    chains: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        """Raises: ConfigError for a chain of less than two segments, and for segments that do not exist."""
        for chain in self.chains:
            if chain.ndim != 1 or len(chain) < 2:
                raise ConfigError(
                    f"a chain has shape {chain.shape}; expected a vector of at least 2 segments."
                )
            check_rows("chains", chain, len(self.segments))

    @classmethod
    def read(cls, reader: ContinuingReader, requests: Sequence[Self], size: BatchSize) -> list[ChainReading]:
        """Read the chains of all requests, the longest first.

        Raises: whatever the reader raises; ModelError when a result has another shape than in the protocol.
        """
        texts = [
            request.segments[chain].astype(np.int64, copy=False)
            for request in requests
            for chain in request.chains
        ]
        given = [np.empty((len(text) - 1, text.shape[1] - 1), dtype=np.float32) for text in texts]
        waiting = sorted(range(len(texts)), key=lambda n: -len(texts[n]))  # those that still go on come first
        while waiting:
            # What a chain has read stays in its state: so many chains hold as much as one block of segments.
            batch = waiting[: max(1, size.segments // (len(texts[waiting[0]]) - 1))]
            pulse.step()
            try:
                _read_batch(reader, [texts[n] for n in batch], [given[n] for n in batch])
            except (MemoryError, RuntimeError, OSError) as error:
                if not size.recovers(error):
                    raise
                continue
            waiting = waiting[len(batch) :]
            pulse.read_part(len(texts) - len(waiting), len(texts))
        ends = np.cumsum([0, *(len(request.chains) for request in requests)]).tolist()
        return [
            request._reading(tuple(given[first:stop]))
            for request, first, stop in zip(requests, ends[:-1], ends[1:], strict=True)
        ]

    def _reading(self, given: tuple[np.ndarray, ...]) -> ChainReading:
        length, steps = self.segments.shape[1], sum(map(len, given))
        return ChainReading(given, tokens_alone=len(given) * length, tokens_given=steps * length)


def _read_batch(reader: ContinuingReader, texts: list[np.ndarray], given: list[np.ndarray]) -> None:
    """Read chains together, and fill `given` of each. Args: texts `[m, L]`, longest first."""
    firsts = np.stack([text[0] for text in texts])
    nll, states = reader.alone(firsts)
    check_shape("alone", nll, firsts)
    for step in range(1, len(texts[0])):
        going = [n for n, text in enumerate(texts) if len(text) > step]
        segments = np.stack([texts[n][step] for n in going])
        nll, states = _continued(reader, states, segments)
        for n, row in zip(going, nll, strict=True):
            given[n][step - 1] = row


def _continued(reader: ContinuingReader, states: Any, segments: np.ndarray) -> tuple[np.ndarray, Any]:
    """Read one segment more of each chain; the states are in the order of the chains, the ended ones last."""
    nll, after = reader.continued(states, np.arange(len(segments)), segments)
    check_shape("continued", nll, segments)
    return nll, after
