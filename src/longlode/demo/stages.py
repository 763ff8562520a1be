"""Stage keeping of the demo: each stage is timed, announced, and adds facts to the record."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from longlode.cli.console import note, say_wrapped


class Stages:
    """Timer of the stages, which announces each; `done` has the facts for the record."""

    def __init__(self, num: int) -> None:
        """Nothing is done yet. Args: num, stages in all."""
        self.num = num
        self.done: list[dict[str, Any]] = []

    @contextmanager
    def __call__(self, name: str, about: str) -> Iterator[dict[str, Any]]:
        """Run one stage; the entries that the body adds to the yielded dict are printed and kept."""
        note(f"[{len(self.done) + 1}/{self.num}] {about}")
        started = time.monotonic()
        facts: dict[str, Any] = {}
        yield facts
        seconds = time.monotonic() - started
        self.done.append({"name": name, "seconds": round(seconds, 2), "summary": facts})
        shown = ", ".join(f"{key.replace('_', ' ')} {_shown(value)}" for key, value in facts.items())
        say_wrapped(shown, first=f"{name:9} {seconds:6.1f} s   ", rest=" " * 21)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
