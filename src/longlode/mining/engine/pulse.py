"""Signs of life of worker processes: their progress, sent once a second, and the workers that stopped sending it.

Progress is of two kinds. Steps tell that a process is not stuck. The count tells how much of its unit is done, for
the person who waits; no result depends on it.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import NamedTuple

BEAT_SECONDS = 1.0
_FIRST_BEAT_FACTOR = 5
"""A worker that is starting imports modules first; it may be silent this many times as long."""

LISTEN_SECONDS = 0.2
"""Least time between two calls of the listener in this process."""


class Count(NamedTuple):
    """Progress within a unit. unit: fingerprint of its job. share: done of it, 0 to 1. The others: done so far."""

    unit: str = ""
    share: float = 0.0
    documents: int = 0
    tokens: int = 0


class Sign(NamedTuple):
    """Beat of a worker: its PID, its steps so far, whether it should make some, and how far its unit is.

    place: of the document in hand in its unit, where each is announced; -1 where they are not.
    """

    pid: int
    steps: int
    is_busy: bool
    done: Count = Count()
    place: int = -1


Listen = Callable[[Mapping[str, Count]], None]
"""Function called with the counts of the units in progress, by fingerprint."""


class _Counter:
    """The count of this process. shown is replaced as a whole, so that another thread can read it at any time."""

    def __init__(self) -> None:
        self.shown = Count()
        self.listen: Listen | None = None
        self.error: Exception | None = None
        self._done = 0.0  # the share of finished documents; `shown` has that of the ones being read as well
        self._ahead = 0.0
        self._span = (0.0, 1.0)
        self._last = -LISTEN_SECONDS

    def start(self, unit: str) -> None:
        self._done, self._ahead, self._span = 0.0, 0.0, (0.0, 1.0)
        self.shown = Count(unit)

    def read_next(self, share: float) -> None:
        self._ahead, self._span = share, (0.0, 1.0)

    def enter_span(self, low: float, high: float) -> None:
        self._span = (low, high)

    def read(self, part: float) -> None:
        low, high = self._span
        self._show(self._done + self._ahead * (low + (high - low) * part), 0, 0)

    def finish(self, share: float, documents: int, tokens: int) -> None:
        self._done, self._ahead = self._done + share, 0.0
        self._show(self._done, documents, tokens)

    def _show(self, share: float, documents: int, tokens: int) -> None:
        before = self.shown
        share = max(
            before.share, min(share, 1.0)
        )  # what is read again after an error does not take the bar back
        self.shown = Count(before.unit, share, before.documents + documents, before.tokens + tokens)
        now = time.monotonic()
        if self.listen is None or now - self._last < LISTEN_SECONDS:
            return
        self._last = now
        try:
            self.listen({before.unit: self.shown})
        except Exception as error:  # it is no error of the document that is being read just now
            self.listen, self.error = None, error


_steps = 0
_is_busy = False
_place = -1
_pulse: Connection | None = None
_telling = threading.Lock()
_counter = _Counter()


def start_unit(unit: str) -> None:
    """Start the count of a unit. Args: unit, fingerprint of its job."""
    global _place
    _place = -1
    _counter.start(unit)


def announce(place: int) -> None:
    """Tell at once which document of the unit is taken in hand (-1: none): this process may not live to tell later."""
    global _place
    step()
    with _telling, contextlib.suppress(OSError):
        _place = place
        if _pulse is not None:
            _pulse.send(_sign())


def _sign() -> Sign:
    return Sign(os.getpid(), _steps, _is_busy, _counter.shown, _place)


def finish_documents(share: float, documents: int, tokens: int) -> None:
    """Count documents that are done. Args: share, theirs of the unit; tokens, of the scored ones."""
    _counter.finish(share, documents, tokens)


def read_next(share: float) -> None:
    """Announce documents that are read together. Args: share, theirs of the unit, until they are finished."""
    _counter.read_next(share)


def enter_span(number: int, total: int) -> None:
    """Announce the one of `total` kinds of requests that is read now, from 0; each counts as the same work."""
    _counter.enter_span(number / total, (number + 1) / total)


def read_part(done: int, total: int) -> None:
    """Count how much is read of the requests of the announced kind."""
    _counter.read(done / total if total else 1.0)


@contextlib.contextmanager
def listening(listen: Listen | None) -> Iterator[Callable[[], None]]:
    """While in it, `listen` is called, in this thread, with the count as it changes.

    Yields: a function to call after each unit, which raises the error that `listen` has raised in the unit, if any.
    """

    def check() -> None:
        error, _counter.error = _counter.error, None
        if error is not None:
            raise error

    _counter.listen, _counter.error = listen, None
    try:
        yield check
    finally:
        _counter.listen = None


def step() -> None:
    """Count one more thing done in this process: a batch encoded, a block read, a document finished."""
    global _steps
    _steps += 1


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """While in it, this process is expected to make steps."""
    global _is_busy
    step()
    _is_busy = True
    try:
        yield
    finally:
        _is_busy = False


def beat_into(pulse: Connection) -> None:
    """Send the progress of this process, from a thread of its own, until the other end is closed."""
    global _pulse
    _pulse = pulse

    def tell() -> None:
        with contextlib.suppress(OSError):
            while True:
                # Shorter than PIPE_BUF, so that what several processes send at once is not mixed.
                with _telling:
                    pulse.send(_sign())
                time.sleep(BEAT_SECONDS)

    threading.Thread(target=tell, daemon=True).start()


class Watch:
    """Workers that have stopped: those without a sign of life, or busy without a step.

    Only time that this process was awake itself counts, in portions of two beats at most: a job that is suspended as a
    whole (Ctrl-Z, a closed laptop) continues afterwards.
    """

    def __init__(self, pulse: Connection, silent_seconds: float, stuck_seconds: float) -> None:
        """Args: pulse, the reading end; the others as of `ScoreSettings`.

        place, why: the document that was announced last, and why the last worker was found to have stopped.
        """
        self.place, self.why = -1, ""
        self._pulse = pulse
        self._limits = (silent_seconds, stuck_seconds)
        self._last_look = time.monotonic()
        self._steps: dict[int, int] = {}
        self._counts: dict[int, Count] = {}
        self._silent: dict[int, float] = {}
        self._stuck: dict[int, float] = {}

    def counts(self, workers: set[int]) -> dict[str, Count]:
        """The last known counts of the workers with these PIDs, by unit."""
        counts = (self._counts[pid] for pid in workers & self._counts.keys())
        return {count.unit: count for count in counts if count.unit}

    def stopped(self, workers: set[int]) -> dict[int, str]:
        """Read the signs since the last call.

        Args: workers, PIDs of those that should run. Returns: reasons, by PID of those that stopped.
        """
        now = time.monotonic()
        passed = min(now - self._last_look, 2 * BEAT_SECONDS)
        self._last_look = now
        for pid in workers:
            self._silent[pid] = self._silent.get(pid, 0.0) + passed
            self._stuck[pid] = self._stuck.get(pid, 0.0) + passed
        while self._pulse.poll():
            pid, steps, is_busy, count, place = self._pulse.recv()
            self.place = place
            self._counts[pid] = count
            self._silent[pid] = 0.0
            if not is_busy or steps != self._steps.get(pid):
                self._stuck[pid] = 0.0
            self._steps[pid] = steps
        silent_seconds, stuck_seconds = self._limits
        found = {}
        for pid in workers:
            patience = silent_seconds if pid in self._steps else _FIRST_BEAT_FACTOR * silent_seconds
            if self._silent[pid] > patience:
                found[pid] = f"gave no sign of life for {patience:g} seconds"
            elif self._stuck[pid] > stuck_seconds:
                found[pid] = f"got nothing done for {stuck_seconds:g} seconds"
        self.why = next(iter(found.values()), self.why)
        return found
