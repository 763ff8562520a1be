"""cli: the `longlode` command. Each file is one command and only calls the other packages, which do the work.

May import: every package, lazily, inside the command that needs it, so that `longlode --help` loads no torch.
Start reading: `commands.py` (the list of commands), then `score.py`, then `demo.py` (all of them in sequence).

This file imports nothing heavy at module level, so that Ctrl-C is handled from the start; `import longlode`, which
runs before it, is kept short for the same reason.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longlode.cli.commands import app

__all__ = ["app", "main"]

EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point of the console script; Ctrl-C ends it with status 130, even if other code swallowed it."""
    received: list[int] = []
    try:
        _note_interrupts(received)
        from longlode.cli.commands import run

        run()
    except (
        KeyboardInterrupt
    ):  # during the imports, or on the way out; inside a command `guard` has more to say
        _end_interrupted()
    except SystemExit as done:
        if received and done.code != EXIT_INTERRUPTED:
            _end_interrupted()
        raise


def _note_interrupts(received: list[int]) -> None:
    """Append every SIGINT to `received`, and raise KeyboardInterrupt as usual.

    Callbacks, destructors and some packages' imports swallow a KeyboardInterrupt; the exit status must still show it.
    """
    import signal
    import threading

    def note(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    own = threading.current_thread() is threading.main_thread()
    if own and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, note)


def _end_interrupted() -> None:
    sys.stderr.write("Interrupted.\n")
    sys.exit(EXIT_INTERRUPTED)


def __getattr__(name: str) -> Any:
    if name == "app":
        from longlode.cli.commands import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
