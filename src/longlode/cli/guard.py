"""Messages of commands that fail: one line that says what to do, and no traceback."""

import errno
import functools
import os
import secrets
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec

import typer
from rich.panel import Panel
from rich.text import Text

from longlode.cli import EXIT_INTERRUPTED
from longlode.cli.console import complain, plain, stderr
from longlode.core.errors import LonglodeError

P = ParamSpec("P")

EXIT_UNEXPECTED = 1
EXIT_REFUSED = 2
_OWN_EXITS = (typer.Exit, typer.Abort, typer.BadParameter)
_REFUSALS = {
    errno.ENOSPC: "Free space there, or name another place.",
    errno.EDQUOT: "Free space there, or name another place.",
    errno.EFBIG: "Name a place on a file system that takes files of this size.",
    errno.EROFS: "Name a place that can be written to.",
    errno.EACCES: "Name a place that you may read and write.",
    errno.EPERM: "Name a place that you may read and write.",
    errno.EMFILE: "Raise the limit on open files (ulimit -n), or use fewer workers.",
    errno.ENFILE: "Close programs that hold many files open, or use fewer workers.",
    errno.ENAMETOOLONG: "Name a shorter path.",
    errno.EIO: "The disk or its connection fails: look at the system's log, then try again or name another place.",
    errno.ENOMEM: "Free memory, or ask for smaller batches or fewer workers.",
}
"""Advice for errors of the operating system that the user can resolve."""
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_OUTPUTS = ("out", "save_state", "probe_states")


def guarded(
    command: Callable[P, Any], interrupted: Callable[[Mapping[str, Any]], str] = lambda options: ""
) -> Callable[P, None]:
    """Wrap a command: errors of longlode show a panel and exit 2, Ctrl-C exits 130, others write a log and exit 1.

    Args: interrupted, says after Ctrl-C what is on disk and how to go on, given the options of the command.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except _OWN_EXITS:
            raise
        except LonglodeError as error:
            _show(str(error))
            raise typer.Exit(EXIT_REFUSED) from None
        except KeyboardInterrupt:
            complain(f"Interrupted. {interrupted(kwargs)}".rstrip())
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except Exception as error:
            refusal = _refusal(error, kwargs)
            if refusal:
                _show(refusal)
                raise typer.Exit(EXIT_REFUSED) from None
            _report_unexpected(error)
            raise typer.Exit(EXIT_UNEXPECTED) from None

    return run


def _show(message: str) -> None:
    stderr().print(Panel(Text(plain(message)), title="longlode", title_align="left", border_style="red"))


def _refusal(error: Exception, options: Mapping[str, Any]) -> str:
    """Message for an error of the operating system: what failed, where, and what to do; "" for other errors.

    Libraries in other languages (safetensors, DuckDB, Arrow) raise such errors as classes of their own; they are
    recognized by their text.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number not in _REFUSALS:
        number = next((one for one in _OF_DISKS if os.strerror(one) in str(error)), None)
    if number is None:
        return ""
    named = [getattr(error, name, None) for name in ("filename", "filename2")]
    places = [str(name) for name in named if name is not None]
    if not places and number in _OF_DISKS:
        places = [str(options[name]) for name in _OUTPUTS if options.get(name) is not None]
    where = f": {' -> '.join(places)}" if places else ""
    return f"The operating system refused: {os.strerror(number)}{where}. {_REFUSALS[number]}"


def _report_unexpected(error: Exception) -> None:
    """Print in one line what happened and where the full traceback is."""
    trace = traceback.format_exc()
    if os.environ.get("LONGLODE_DEBUG"):
        sys.stderr.write(trace)
        return
    message = f"This should not have happened: {type(error).__name__}: {error}"
    log = _write_log(trace)
    if log is None:
        advice = "Run it again with LONGLODE_DEBUG=1 to see the traceback."
    else:
        advice = f"The full traceback is in {log}; LONGLODE_DEBUG=1 shows it here. Please report it."
    _show(f"{message}\n{advice}")


def _write_log(trace: str) -> Path | None:
    """Write a traceback to a new file that only its owner may read; None if that fails.

    The temporary folder is open to everyone: the name cannot be guessed, and a link of that name is not followed.
    """
    log = Path(tempfile.gettempdir()) / f"longlode-error-{secrets.token_hex(8)}.log"
    text = f"{' '.join(sys.argv)}\n\n{trace}"
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
    except OSError:
        return None
    return log
