"""What a person sees when a command fails: one message that says what to do, and no traceback."""

import functools
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

import typer
from rich.panel import Panel
from rich.text import Text

from longlode.cli.console import note, plain, stderr
from longlode.core.errors import LonglodeError

P = ParamSpec("P")

EXIT_UNEXPECTED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130
_OWN_EXITS = (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError)


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command: our errors are a panel and exit 2, Ctrl-C exit 130, anything else exit 1 and a log."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except _OWN_EXITS:
            raise
        except LonglodeError as error:
            stderr().print(
                Panel(Text(plain(str(error))), title="longlode", title_align="left", border_style="red")
            )
            raise typer.Exit(EXIT_REFUSED) from None
        except KeyboardInterrupt:
            note("Interrupted. What was finished is on disk; the same command goes on from there.")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except Exception as error:
            _report_unexpected(error)
            raise typer.Exit(EXIT_UNEXPECTED) from None

    return run


def _report_unexpected(error: Exception) -> None:
    """Say in one line what happened and where the whole traceback lies."""
    trace = traceback.format_exc()
    if os.environ.get("LONGLODE_DEBUG"):
        sys.stderr.write(trace)
        return
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        message = f"The operating system refused: {error.strerror}{where}."
    else:
        message = f"This should not have happened: {type(error).__name__}: {error}"
    log = Path(tempfile.gettempdir()) / f"longlode-error-{os.getpid()}.log"
    try:
        log.write_text(f"{' '.join(sys.argv)}\n\n{trace}", encoding="utf-8")
        advice = f"The full traceback is in {log}; LONGLODE_DEBUG=1 shows it here."
    except OSError:
        advice = "Run it again with LONGLODE_DEBUG=1 to see the traceback."
    text = Text(plain(f"{message}\n{advice}"))
    stderr().print(Panel(text, title="longlode", title_align="left", border_style="red"))
