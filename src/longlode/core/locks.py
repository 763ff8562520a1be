"""One writer at a time for a folder or file of output, on one host and across hosts that share a file system.

Where flock works, it decides: the kernel frees the lock when its holder ends, even by a crash. Where a file system
shared by several hosts does not pass flock between them, or has none, the lock file itself decides: it names its
holder, which renews its time stamp every few seconds; a lock not renewed for `STALE_SECONDS` is taken over.
"""

import contextlib
import errno
import os
import platform
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from longlode.core.errors import InputError
from longlode.core.processes import boot_tag, is_gone, machine_tag, process_tag

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

BEAT_SECONDS = 15.0
STALE_SECONDS = 120.0
_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def write_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` inside the `with` block; remove it afterwards.

    Args: path, the lock file; its folder must exist. what, the thing that is written to, for the message.
    Raises: InputError that names the holder if another process holds the lock; also if no lock can be made there.
    """
    try:
        handle = _acquire(path, what)
    except OSError as error:
        raise InputError(
            f"{what} cannot be locked for writing: {path}: {error.strerror or error}. Choose a place that you can "
            "write to."
        ) from None
    ended = threading.Event()
    beat = threading.Thread(target=_renew, args=(handle, ended), daemon=True, name="longlode lock")
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        with contextlib.suppress(OSError):
            # Removed before it is released: a process that opened it meanwhile sees that it is gone, and tries again.
            if _same_file(handle, path):
                path.unlink()
        os.close(handle)


def _acquire(path: Path, what: str) -> int:
    """Open, lock and sign the lock file; return its handle."""
    while True:
        try:
            handle, is_new = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), True
        except FileExistsError:
            try:
                handle, is_new = os.open(path, os.O_RDWR), False
            except FileNotFoundError:  # released between the two calls
                continue
        try:
            reaches_kernel = _flock(handle)
            if reaches_kernel and not _same_file(handle, path):
                os.close(handle)
                continue
            holder = _read_holder(handle)
            if not is_new and not _is_abandoned(handle, path, holder, reaches_kernel):
                raise BlockingIOError
            if not (is_new or reaches_kernel):  # nothing but the creation of the file is atomic here
                path.unlink(missing_ok=True)
                os.close(handle)
                continue
            _sign(handle)
        except BlockingIOError:
            message = _held(path, what, _read_holder(handle), _age_seconds(handle, path))
            os.close(handle)
            raise InputError(message) from None
        except BaseException:
            os.close(handle)
            raise
        return handle


def _flock(handle: int) -> bool:
    """Lock an open file; False where the file system has no such locks. Raises BlockingIOError if it is held."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return False
        if error.errno == errno.EACCES:  # what some network file systems say instead
            raise BlockingIOError from None
        raise
    return True


def _is_abandoned(handle: int, path: Path, holder: dict[str, Any], reaches_kernel: bool) -> bool:
    """Return True if the holder that the lock file names has ended or stopped renewing it."""
    if reaches_kernel and holder.get("boot") in (None, boot_tag()):
        return True  # we hold the flock that it held on this same kernel
    if holder.get("machine") == machine_tag():
        return is_gone(str(holder.get("process")))
    return _age_seconds(handle, path) > STALE_SECONDS


def _age_seconds(handle: int, path: Path) -> float:
    """Return the seconds since the lock file was renewed, by the clock of the file system, which all hosts share."""
    probe = path.with_name(f".{path.name}.{process_tag()}.tmp")
    try:
        probe.write_bytes(b"")
        return probe.stat().st_mtime - os.fstat(handle).st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _renew(handle: int, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):  # a file server that is away for a while
            os.utime(handle)


def _sign(handle: int) -> None:
    """Write down who holds the lock."""
    holder = {
        "host": platform.node(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_tag(),
        "boot": boot_tag(),
        "process": process_tag(),
    }
    os.ftruncate(handle, 0)
    os.pwrite(handle, orjson.dumps(holder), 0)
    os.fsync(handle)


def _read_holder(handle: int) -> dict[str, Any]:
    """Return the holder that the lock file names; {} if it is still empty or unreadable."""
    try:
        found = orjson.loads(os.pread(handle, 1 << 16, 0))
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _same_file(handle: int, path: Path) -> bool:
    """Return True if `path` still names the open file."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(handle)
    return (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev)


def _held(path: Path, what: str, holder: dict[str, Any], age_seconds: float) -> str:
    who = (
        f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        if {"pid", "host", "since"} <= holder.keys()
        else "another process"
    )
    message = f"{what} is being written by {who}; expected no other writer. Wait until it ends, or stop it."
    if holder.get("boot") not in (None, boot_tag()):
        message += (
            f" Its last sign of life is {age_seconds:.0f} seconds old; it counts as gone after {STALE_SECONDS:.0f} "
            f"(lock file: {path})."
        )
    return message
