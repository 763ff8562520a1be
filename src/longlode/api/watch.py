"""Callbacks through which long functions report notes and progress."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Update = Callable[[int, int | None, str], None]
"""Function called with the amount done, the total (None if unknown), and a remark."""


class Watch:
    """Receiver of notes and progress; this one ignores them. The command line has one that prints."""

    def note(self, line: str) -> None:
        """Receive a line for the user."""

    @contextmanager
    def progress(self, label: str, *, in_bytes: bool = False) -> Iterator[Update]:
        """Yield the function to call with the progress of the work named `label`. Args: in_bytes, what it counts."""
        yield ignore


def ignore(done: int, total: int | None, remark: str = "") -> None:
    """Ignore the progress."""


SILENT = Watch()
