"""Faults at the n-th file operation of this process: a small C library loaded before all others, or, where there is no
compiler, the same in Python for what goes through `os`.

The C library (kill_shim.c) sees every library's operations, and can tear a write in two. The Python one sees renames,
removals, new folders and syncs that Python code asks for, and no writes.
"""

import ctypes
import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

KINDS = ("count", "kill", "torn", "EIO once", "EIO on", "ENOSPC on")
"""What may happen at the n-th operation: nothing; SIGKILL before it; half of it, then SIGKILL; it fails once; it and
all after it fail; the disk is full from there on."""
KILLS, ERRORS = KINDS[1:3], KINDS[3:]
_SOURCE = Path(__file__).with_name("kill_shim.c")
_PRELOADED = "LONGLODE_KILL_SHIM"
_COUNTED = ("rename", "replace", "unlink", "remove", "rmdir", "mkdir", "fsync")


class Shim(Protocol):
    """Counts operations below a folder, and lets one of them go wrong."""

    name: str

    def arm(self, folder: Path, kind: str, at: int) -> None:
        """Count from here on; at operation `at`, counted from 1, what `kind` says happens."""

    def disarm(self) -> int:
        """Count no more. Returns: how many operations there were."""


class NativeShim:
    """The C library, which must have been preloaded (`start_preloaded`)."""

    name = "preloaded C library"

    def __init__(self, library: str) -> None:
        """Find the library that this process was started with."""
        self._library = ctypes.CDLL(library)
        self._library.fault_count.restype = ctypes.c_long
        self._library.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long]

    def arm(self, folder: Path, kind: str, at: int) -> None:
        """See `Shim.arm`."""
        self._library.fault_arm(os.fsencode(folder), KINDS.index(kind), at)

    def disarm(self) -> int:
        """See `Shim.disarm`."""
        self._library.fault_disarm()
        return int(self._library.fault_count())


class PythonShim:
    """Stands in front of `os.rename` and its kin."""

    name = "functions of os (no C compiler here): no writes"

    def __init__(self) -> None:
        """Change nothing yet."""
        self._folder, self._kind, self._at, self._count = "", "count", 0, 0
        self._real: dict[str, Callable[..., Any]] = {}

    def arm(self, folder: Path, kind: str, at: int) -> None:
        """See `Shim.arm`."""
        self._folder, self._kind, self._at, self._count = str(folder), kind, at, 0
        for name in _COUNTED:
            self._real[name] = getattr(os, name)
            setattr(os, name, self._counted(name))

    def disarm(self) -> int:
        """See `Shim.disarm`."""
        for name, function in self._real.items():
            setattr(os, name, function)
        return self._count

    def _counted(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def counted(first: Any, *rest: Any, **options: Any) -> Any:
            if isinstance(first, int) or str(Path(os.fsdecode(first)).absolute()).startswith(self._folder):
                self._count += 1
                self._decide(lambda: real(first, *rest, **options))
            return real(first, *rest, **options)

        return counted

    def _decide(self, operation: Callable[[], Any]) -> None:
        reached, exactly = self._count >= self._at, self._count == self._at
        if exactly and self._kind in KILLS:
            if self._kind == "torn":
                operation()
            os.kill(os.getpid(), signal.SIGKILL)
        if (self._kind == "EIO once" and exactly) or (self._kind == "EIO on" and reached):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def make_shim(module: str, *, native: bool = True) -> Shim:
    """The shim of this process; on the first call the process may start anew as `python -m module`, preloaded.

    Args: native: False for the Python one even where there is a compiler.
    """
    if library := os.environ.pop(_PRELOADED, ""):
        os.environ.pop("LD_PRELOAD", None)  # not for the processes that the tested commands start
        return NativeShim(library)
    compiled = _compile() if native else None
    if compiled is None:
        return PythonShim()
    sys.stdout.flush()
    environment = os.environ | {"LD_PRELOAD": str(compiled), _PRELOADED: str(compiled)}
    os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], environment)


def _compile() -> Path | None:
    """The compiled library, made once for each content of its source; None without Linux or a compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    content = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"longlode-kill-{os.getuid()}" / f"{content}.so"
    if not library.is_file():
        library.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished = library.with_suffix(f".{os.getpid()}")
        flags = ["-O1", "-shared", "-fPIC", "-o", str(unfinished), str(_SOURCE), "-ldl"]
        done = subprocess.run([compiler, *flags], capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{compiler} cannot compile {_SOURCE.name}: {done.stderr.strip()[:500]}", file=sys.stderr)
            return None
        unfinished.replace(library)
    return library
