"""Names of processes that let others decide, later and from another machine, if a process has ended; their end."""

import hashlib
import multiprocessing
import os
import platform
import re
import threading
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path

_TAG = re.compile(r"[0-9a-f]{8}-\d+-\d+")


def process_tag() -> str:
    """Name this process: `machine-pid-start`, in characters that file names may hold.

    machine: 8 hex digits that differ between hosts, between boots and between containers (PID namespaces), as a PID
    is valid in one of them only. start: the kernel's start time of the process, as PIDs are reused; 0 if the system
    does not say.
    """
    return f"{machine_tag()}-{os.getpid()}-{_start_time(os.getpid())}"


def is_gone(tag: str) -> bool:
    """Return True if the process named `tag` (`process_tag`) has provably ended; False if it runs or cannot be judged.

    Only processes of this machine, since its last boot and in this container, can be judged.
    """
    if not _TAG.fullmatch(tag):
        return False
    machine, pid, start = tag.split("-")
    if machine != machine_tag():
        return False
    return not _is_running(int(pid)) or _start_time(int(pid)) != int(start)


def end_with_parent() -> None:
    """Let this child process of multiprocessing end when its parent does, even by SIGKILL; else it would live on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_await_end, args=(parent,), daemon=True, name="longlode parent").start()


def _await_end(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


@cache
def boot_tag() -> str:
    """Name the running kernel by 8 hex digits: the same in all containers of a host until it boots again."""
    return _digest(_read("/proc/sys/kernel/random/boot_id") or platform.node())


@cache
def machine_tag() -> str:
    """Name the host, its boot and the PID namespace of this process by 8 hex digits."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # no Linux, or no /proc: use the host's name instead
        namespace = ""
    return _digest(f"{platform.node()}\0{boot_tag()}\0{namespace}")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it runs, as another user
        return True
    # A zombie has ended, and only waits for its parent to read its exit status.
    return _stat_fields(pid)[:1] not in (["Z"], ["X"])


def _start_time(pid: int) -> int:
    """Return the start time of a process in clock ticks after boot; 0 if unknown."""
    fields = _stat_fields(pid)
    return int(fields[19]) if len(fields) > 19 else 0


def _stat_fields(pid: int) -> list[str]:
    """Read /proc/PID/stat from field 3 (state) on, which puts field 22 (start time) at index 19; empty if unknown."""
    # Field 2, the program's name in parentheses, may hold blanks and parentheses itself.
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def started_ranks() -> int:
    """Return the number of processes that torchrun started; 1 where it started none."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def started_rank() -> int:
    """Return the rank that torchrun gave this process; 0 where it started none."""
    return int(os.environ.get("RANK", "0")) if os.environ.get("WORLD_SIZE", "1") != "1" else 0
