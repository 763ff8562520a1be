"""SIGTERM and SIGINT ask the loop to stop after its step; nothing is cut off in the middle."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignal:
    """Inside `with StopSignal() as stop`, the first SIGTERM or SIGINT sets `stop.received` and nothing else.

    A second one acts as it would have without us. Outside the main thread, where Python allows no handlers,
    signals are left alone.
    """

    def __init__(self) -> None:
        """Nothing is installed yet."""
        self.received: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Put the earlier handlers back."""
        self._restore()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
