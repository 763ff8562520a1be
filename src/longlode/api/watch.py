"""What long functions tell while they work, and to whom."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Update = Callable[[int, int | None, str], None]
"""Called with what is done, all there is (if known), and a remark."""


class Watch:
    """Hears what a function tells; this one keeps it to itself. The command line has one that prints."""

    def note(self, line: str) -> None:
        """A line for a person."""

    @contextmanager
    def progress(self, label: str) -> Iterator[Update]:
        """Yield what to call as the work called `label` goes on."""
        yield _ignore


def _ignore(done: int, total: int | None, remark: str = "") -> None:
    """Nobody asked."""


SILENT = Watch()
