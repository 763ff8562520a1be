"""Claims: which units a run has in hand, so that other runs on the same folder take others.

Every run keeps one small file, `OUT/runs/RUN.json`, with what it has in hand, how far it is, and a count that it
raises every few seconds. A run whose count stands still has ended: its claims lapse. The count is watched with the
clock of the run that watches, so it does not matter what the clocks of the machines say.

Claims save work and decide nothing: a unit that two runs do at once gives the same bytes twice. So an error of the disk
here is no error of the run, and no file is synced.
"""

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from longlode.core.kinds import RUNS_FOLDER
from longlode.core.processes import is_gone, process_tag
from longlode.core.records import remove_leftovers, temporary_name

RUN_SUFFIX = ".json"
BEAT_SECONDS = 2.0
LEASE_SECONDS = 60.0
"""A run that has not raised its count for so long has ended, unless it is known earlier."""


@dataclass
class Sighting:
    """State of another run when it was last seen. seconds: of the own clock, when its count last changed."""

    beat: int
    seconds: float
    units: frozenset[str] = frozenset()


@dataclass(eq=False)
class Claims:
    """The claims of this run, and what it sees of other runs on the folder. Use `claiming`."""

    folder: Path
    lease_seconds: float = LEASE_SECONDS
    describe: Callable[[], dict[str, Any]] = dict
    _units: dict[str, float] = field(default_factory=dict)
    _others: dict[str, Sighting] = field(default_factory=dict)
    _beat: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def path(self) -> Path:
        """Path of this run's file."""
        return self.folder / f"{process_tag()}{RUN_SUFFIX}"

    def take(self, unit: str) -> bool:
        """Claim a unit. Returns: False when another run has it in hand."""
        if self.is_taken(unit):
            return False
        self._units[unit] = time.monotonic()
        self.beat()
        if self._others and self.is_taken(unit, rivals_only=True):  # both looked before either had written
            del self._units[unit]
            self.beat()
            return False
        return True

    def release(self, unit: str) -> None:
        """Give a unit back; others learn it with the next beat, and from its part."""
        self._units.pop(unit, None)

    def is_taken(self, unit: str, *, rivals_only: bool = False) -> bool:
        """Return True if a living run has the unit in hand. Args: rivals_only: only one whose name goes before."""
        self._look()
        own = process_tag()
        return any(unit in seen.units for tag, seen in self._others.items() if not rivals_only or tag < own)

    def beat(self) -> None:
        """Write this run's file anew."""
        # RuntimeError: `describe` reads what another thread may be changing just now.
        with self._lock, contextlib.suppress(OSError, RuntimeError):
            self._beat += 1
            now = time.monotonic()
            about = {
                "run": process_tag(),
                "host": platform.node(),
                "pid": os.getpid(),
                "beat": self._beat,
                "written": time.time(),
                "in_hand": {unit: round(now - since, 1) for unit, since in list(self._units.items())},
                **self.describe(),
            }
            temporary = temporary_name(self.path)
            try:
                temporary.write_bytes(orjson.dumps(about))
                temporary.replace(self.path)
            except FileNotFoundError:
                self.folder.mkdir(exist_ok=True)
            finally:
                temporary.unlink(missing_ok=True)

    def _look(self) -> None:
        """Read the files of the other runs; those of runs that have ended are removed."""
        now = time.monotonic()
        found = {path.name.removesuffix(RUN_SUFFIX): path for path in run_files(self.folder)}
        found.pop(process_tag(), None)
        for tag in self._others.keys() - found.keys():
            del self._others[tag]
        for tag, path in found.items():
            about = read_run(path)
            if about is None:  # torn: another file system, or removed meanwhile
                continue
            seen = self._others.get(tag)
            if seen is None or seen.beat != about["beat"]:
                self._others[tag] = Sighting(about["beat"], now, frozenset(about["in_hand"]))
            if is_gone(tag) or now - self._others[tag].seconds > self.lease_seconds:
                del self._others[tag]
                with contextlib.suppress(OSError):
                    path.unlink()

    def end(self) -> None:
        """Remove this run's file, those of runs that have ended, and the folder if no other is left."""
        self._look()
        with self._lock, contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            remove_leftovers(self.folder)  # half-written files of killed runs
            self.folder.rmdir()


@contextlib.contextmanager
def claiming(
    out: Path, describe: Callable[[], dict[str, Any]], lease_seconds: float = LEASE_SECONDS
) -> Iterator[Claims]:
    """Keep the claims of this run on the folder `out` alive inside the block.

    Args: describe, more for the run's file; called from another thread.
    """
    claims = Claims(out / RUNS_FOLDER, lease_seconds, describe)
    with contextlib.suppress(OSError):
        claims.folder.mkdir(exist_ok=True)
    claims.beat()
    ended = threading.Event()

    def keep_alive() -> None:
        while not ended.wait(BEAT_SECONDS):
            claims.beat()

    beat = threading.Thread(target=keep_alive, daemon=True, name="longlode claims")
    beat.start()
    try:
        yield claims
    finally:
        ended.set()
        beat.join()
        claims.end()


def run_files(folder: Path) -> list[Path]:
    """The files of the runs on a folder, by name. Args: folder, `OUT/runs`."""
    with contextlib.suppress(OSError):
        return sorted(
            path for path in folder.iterdir() if path.suffix == RUN_SUFFIX and not path.name.startswith(".")
        )
    return []


def read_run(path: Path) -> dict[str, Any] | None:
    """Read a run's file; None when it is gone or no such file."""
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    is_sound = isinstance(found, dict) and isinstance(found.get("beat"), int)
    return found if is_sound and isinstance(found.get("in_hand"), dict) else None
