"""Signal handling: SIGTERM and SIGINT stop the loop after its current step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignal:
    """Context manager in which the first SIGTERM or SIGINT only sets `stop.received`.

    A second one has its usual effect. Outside the main thread, where Python allows no handlers, signals are not
    handled.
    """

    def __init__(self) -> None:
        """Make the object; handlers are installed on entering."""
        self.received: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Restore the earlier handlers."""
        self._restore()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
