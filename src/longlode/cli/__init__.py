"""cli: the `longlode` command. Each file is one command; what a command does lives in the rooms, not here.

May import: every room, lazily, inside the command that needs it, so that `longlode --help` loads no torch.
Start reading: `commands.py` (the list of commands), then `score.py`, then `demo.py` (all of them in a row).

This file itself imports nothing, so that Ctrl-C is handled from the first moment on.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longlode.cli.commands import app

__all__ = ["app", "main"]

EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point of the console script."""
    try:
        from longlode.cli.commands import run

        run()
    except (
        KeyboardInterrupt
    ):  # during the imports, or on the way out; inside a command `guard` has more to say
        sys.stderr.write("Interrupted.\n")
        sys.exit(EXIT_INTERRUPTED)


def __getattr__(name: str) -> Any:
    if name == "app":
        from longlode.cli.commands import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
