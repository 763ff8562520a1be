"""Commands in forked children of a process that has imported everything, watched from outside.

A child costs a few milliseconds instead of the seconds that importing torch takes, so thousands of them are a matter
of minutes. The parent itself runs no command and starts no thread: a fork of it is as a fresh process.
"""

import atexit
import contextlib
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

LIMIT_SECONDS = 20.0
_POLL_SECONDS = 0.002
_CRASHED = 70
"""Exit status of a child whose command let an exception out."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a child ended.

    status: its exit status, minus the signal that ended it. hung: it had to be ended after the limit. output: what it
    printed, both streams. operations: of the shim, None if the child did not live to say.
    """

    status: int
    hung: bool
    seconds: float
    output: str
    operations: int | None = None

    @property
    def killed(self) -> bool:
        """SIGKILL ended it, and not for being late."""
        return self.status == -signal.SIGKILL and not self.hung


def run_call(
    call: Callable[[], int | None],
    log: Path,
    *,
    folder: Path,
    kill_after: float | None = None,
    signal_number: int = signal.SIGKILL,
    limit: float = LIMIT_SECONDS,
    at_end: Callable[[], int] | None = None,
) -> Outcome:
    """Run `call` in a child whose working folder is `folder`; its output goes to `log`.

    Args: call: gives the exit status, None for 0. kill_after: seconds, then the signal: SIGKILL to the child and all it
      started, another one to the child. limit: seconds, then it hangs. at_end: called in the child after `call`, gives
      `operations`.
    """
    count = log.with_suffix(".count")
    count.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_child(call, log, count, folder, at_end)
    status, hung = _watch(child, began, kill_after, limit, signal_number)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it started must not write into the next trial
    return Outcome(
        status=status,
        hung=hung,
        seconds=time.monotonic() - began,
        output=log.read_text(encoding="utf-8", errors="replace") if log.exists() else "",
        operations=int(count.read_text()) if count.exists() else None,
    )


def _be_child(
    call: Callable[[], int | None], log: Path, count: Path, folder: Path, at_end: Callable[[], int] | None
) -> None:
    """Never returns."""
    status = _CRASHED
    try:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.chdir(folder)
        status = call() or 0
        threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter does at its end, in its order
        atexit._run_exitfuncs()
        if at_end is not None:
            count.write_text(str(at_end()))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _watch(
    child: int, began: float, kill_after: float | None, limit: float, signal_number: int
) -> tuple[int, bool]:
    """Wait for the child: its exit status (minus the signal), and whether it hung."""
    killed = False
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), False
        elapsed = time.monotonic() - began
        if kill_after is not None and elapsed >= kill_after and not killed:
            killed = True
            if signal_number == signal.SIGKILL:
                _kill_group(child)
            else:
                os.kill(child, signal_number)
        if elapsed >= limit:
            _kill_group(child)
            _, status = os.waitpid(child, 0)
            return os.waitstatus_to_exitcode(status), True
        time.sleep(_POLL_SECONDS)


def _kill_group(child: int) -> None:
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has not called setsid yet
        os.kill(child, signal.SIGKILL)


def command(arguments: Iterable[str]) -> Callable[[], int]:
    """A call that is `longlode ARGUMENTS`, its entry point included."""
    words = list(arguments)

    def call() -> int:
        from longlode.cli import main

        sys.argv = ["longlode", *words]
        try:
            main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        return 0

    return call


def import_what_it_imports(call: Callable[[], int | None], log: Path, folder: Path) -> Outcome:
    """Run `call` once in a child, and import here all that it imported there."""
    names = log.with_suffix(".modules")

    def tell() -> int:
        names.write_text("\n".join(sys.modules), encoding="utf-8")
        return 0

    outcome = run_call(call, log, folder=folder, limit=120.0, at_end=tell)
    for name in names.read_text(encoding="utf-8").split("\n") if names.exists() else ():
        if name != "__main__" and name not in sys.modules:
            with contextlib.suppress(Exception):  # the child imports it when it needs it
                importlib.import_module(name)
    return outcome
