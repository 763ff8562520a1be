"""Reading segments and pairs with a reader, in batches that fill across documents and bounded memory.

The segments of many documents are laid end to end and read in blocks. A block's states are used for every
pair whose source is in it and then dropped: a segment is read alone once, a source is never read twice, and no
more states are held than one block has. Only chains (pairs that continue one another) begin with a segment that
is read again; the chains of all documents go forward together, a segment a step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longlode.core.errors import ModelError
from longlode.mining.engine import pulse
from longlode.mining.reader import Reader

_MEMORY_WORDS = ("out of memory", "allocate memory")


@dataclass
class BatchSize:
    """How much goes into one call: `segments` of `alone`, `pairs` of `given`. Halved for good when memory
    runs out.

    It changes speed and memory, not results (beyond the rounding of the reader).
    """

    segments: int = 256
    pairs: int = 1024

    def halve(self) -> bool:
        """Halve both, down to 1. Returns: False when both are 1 already, so that there is nothing to
        halve.
        """
        if self.segments == 1 and self.pairs == 1:
            return False
        self.segments = max(1, self.segments // 2)
        self.pairs = max(1, self.pairs // 2)
        return True


@dataclass(frozen=True, eq=False)
class Job:
    """What to read for one document: segments int `[n, L]`, and pairs of rows of them, targets, sources `[P]`;
    continues bool `[P]` as in a `PairPlan`.
    """

    segments: np.ndarray
    targets: np.ndarray
    sources: np.ndarray
    continues: np.ndarray | None = None

    def chains(self) -> list[np.ndarray]:
        """Pair numbers of each chain, in reading order: a pair that starts from its source, and what continues it."""
        if self.continues is None or not self.continues.any():
            return []
        runs = np.split(np.arange(len(self.targets)), np.flatnonzero(~self.continues))
        return [run for run in runs if len(run) > 1]


@dataclass(frozen=True, eq=False)
class Readings:
    """What was read for one job: alone float32 `[n, L - 1]`, given float32 `[P, L - 1]`, nats; num_reread,
    segments that were read once more because a chain begins with them, or within windows; attention, the shares of
    each window, float32 `[S_w, S_w]`.
    """

    alone: np.ndarray
    given: np.ndarray
    num_reread: int = 0
    attention: tuple[np.ndarray, ...] = ()


def read_jobs(reader: Reader, jobs: Sequence[Job], size: BatchSize) -> list[Readings]:
    """Read all jobs together.

    Args: jobs, at least one, all of one L; size, halved in place when the reader runs out of memory.
    Returns: one Readings per job, in order.
    Raises: whatever the reader raises, out-of-memory errors once a batch of one does not fit; ModelError
      when a result has another shape than the protocol says.
    """
    segments = np.concatenate([job.segments for job in jobs]).astype(np.int64, copy=False)
    firsts = np.cumsum([0, *(len(job.segments) for job in jobs)])
    targets = np.concatenate([job.targets + first for job, first in zip(jobs, firsts[:-1], strict=True)])
    sources = np.concatenate([job.sources + first for job, first in zip(jobs, firsts[:-1], strict=True)])
    ends = np.cumsum([0, *(len(job.targets) for job in jobs)])
    chains = [chain + end for job, end in zip(jobs, ends[:-1], strict=True) for chain in job.chains()]
    in_chain = np.zeros(len(targets), dtype=bool)
    in_chain[np.concatenate([*chains, np.zeros(0, dtype=np.int64)])] = True
    single = np.flatnonzero(~in_chain)
    by_source = single[np.argsort(sources[single], kind="stable")]

    scored = segments.shape[1] - 1
    alone = np.empty((len(segments), scored), dtype=np.float32)
    given = np.empty((len(sources), scored), dtype=np.float32)
    start = 0
    while start < len(segments):
        stop = min(start + size.segments, len(segments))
        low, high = np.searchsorted(sources[by_source], [start, stop])
        pairs = by_source[low:high]
        pulse.step()
        try:
            alone[start:stop], states = _checked_alone(reader, segments[start:stop])
            for first in range(0, len(pairs), size.pairs):
                batch = pairs[first : first + size.pairs]
                given[batch] = _checked_given(
                    reader, states, sources[batch] - start, segments[targets[batch]]
                )
        except (MemoryError, RuntimeError, OSError) as error:
            if not is_out_of_memory(error) or not size.halve():
                raise
            continue  # this block again, smaller; the failed call's tensors die with `error`
        finally:
            states = None  # before the next block asks for its own
        start = stop
    _read_chains(reader, chains, segments[sources], segments[targets], given, size)
    return [
        Readings(alone[firsts[n] : firsts[n + 1]], given[ends[n] : ends[n + 1]], len(job.chains()))
        for n, job in enumerate(jobs)
    ]


def _read_chains(
    reader: Reader,
    chains: Sequence[np.ndarray],
    sources: np.ndarray,
    targets: np.ndarray,
    given: np.ndarray,
    size: BatchSize,
) -> None:
    """Fill the rows of `given` that belong to chains. Args: sources, targets `[P, L]`, the tokens of each pair."""
    if not chains:
        return
    read_on = getattr(reader, "continued", None)
    if read_on is None:
        raise ModelError(
            f"the reader {type(reader).__name__} has no `continued`, which this scorer needs to read several "
            "segments in a row. Use another scorer, or a reader that answers `ContinuingReader`."
        )
    waiting = sorted(chains, key=len, reverse=True)  # those that still go on come first
    while waiting:
        # What a chain has read stays in its state: so many chains hold as much as one block of segments.
        batch = waiting[: max(1, size.segments // len(waiting[0]))]
        pulse.step()
        try:
            _, states = _checked_alone(reader, sources[[chain[0] for chain in batch]])
            for step in range(len(batch[0])):
                pairs = np.array([chain[step] for chain in batch if len(chain) > step])
                given[pairs], states = _checked_continued(
                    read_on, states, np.arange(len(pairs)), targets[pairs]
                )
        except (MemoryError, RuntimeError, OSError) as error:
            if not is_out_of_memory(error) or not size.halve():
                raise
            continue
        finally:
            states = None
        waiting = waiting[len(batch) :]


def read_windows(reader: Reader, segments: np.ndarray, windows: np.ndarray) -> Readings:
    """Read the attention of one document's windows, one after the other.

    Args: segments int `[S, L]`; windows int `[W, 2]`, rows first to stop - 1.
    Raises: whatever the reader raises; ModelError when it has no `attention` or it has another shape than
      `AttendingReader` says.
    """
    attend = getattr(reader, "attention", None)
    if attend is None:
        raise ModelError(
            f"the reader {type(reader).__name__} has no `attention`, which this scorer reads. Use another "
            "scorer, or a reader that answers `AttendingReader`."
        )
    shares = []
    for first, stop in windows:
        pulse.step()
        text = segments[first:stop].reshape(1, -1).astype(np.int64, copy=False)
        found = attend(text)
        if found.shape != (1, stop - first, stop - first):
            raise ModelError(
                f"the reader's `attention` gave shape {found.shape}; expected (1, S, S) with S = {stop - first}."
            )
        shares.append(found[0])
    nothing = np.zeros((0, segments.shape[1] - 1), dtype=np.float32)
    return Readings(nothing, nothing, int((windows[:, 1] - windows[:, 0]).sum()), tuple(shares))


def is_out_of_memory(error: BaseException) -> bool:
    """True for MemoryError and for what torch and the operating system raise when memory runs out."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(words in text for words in _MEMORY_WORDS)


def _checked_alone(reader: Reader, segments: np.ndarray) -> tuple[np.ndarray, Any]:
    nll, states = reader.alone(segments)
    _check_shape("alone", nll, segments)
    return nll, states


def _checked_given(reader: Reader, states: Any, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    nll = reader.given(states, sources, targets)
    _check_shape("given", nll, targets)
    return nll


def _checked_continued(
    read_on: Callable[[Any, np.ndarray, np.ndarray], tuple[np.ndarray, Any]],
    states: Any,
    sources: np.ndarray,
    segments: np.ndarray,
) -> tuple[np.ndarray, Any]:
    nll, after = read_on(states, sources, segments)
    _check_shape("continued", nll, segments)
    return nll, after


def _check_shape(call: str, nll: np.ndarray, segments: np.ndarray) -> None:
    expected = (len(segments), segments.shape[1] - 1)
    if nll.shape != expected:
        raise ModelError(f"the reader's `{call}` gave shape {nll.shape}; expected {expected} (n, L - 1).")
