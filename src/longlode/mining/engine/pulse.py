"""Signs of life of worker processes: their progress, sent once a second, and the workers that stopped sending it."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

BEAT_SECONDS = 1.0
_FIRST_BEAT_FACTOR = 5
"""A worker that is starting imports modules first; it may be silent this many times as long."""

_steps = 0
_is_busy = False


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

    def tell() -> None:
        with contextlib.suppress(OSError):
            while True:
                # Shorter than PIPE_BUF, so that what several processes send at once is not mixed.
                pulse.send((os.getpid(), _steps, _is_busy))
                time.sleep(BEAT_SECONDS)

    threading.Thread(target=tell, daemon=True).start()


class Watch:
    """Workers that have stopped: those without a sign of life, or busy without a step.

    Only time that this process was awake itself counts, in portions of two beats at most: a job that is suspended as a
    whole (Ctrl-Z, a closed laptop) continues afterwards.
    """

    def __init__(self, pulse: Connection, silent_seconds: float, stuck_seconds: float) -> None:
        """Args: pulse, the reading end; the others as of `ScoreSettings`."""
        self._pulse = pulse
        self._limits = (silent_seconds, stuck_seconds)
        self._last_look = time.monotonic()
        self._steps: dict[int, int] = {}
        self._silent: dict[int, float] = {}
        self._stuck: dict[int, float] = {}

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
            pid, steps, is_busy = self._pulse.recv()
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
        return found
