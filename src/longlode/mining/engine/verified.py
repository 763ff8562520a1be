"""Note of the merged parts whose bytes were hashed, or written, by an earlier run: their sizes and times.

    plan/verified.parts     name of a part -> [size in bytes, time of the last change in nanoseconds]

A part that still has the size and the time of its note is taken by its footer alone, so that a run that goes on does
not read all results again. What changes a file and not its time (a fault of the disk, not of a program) is seen
only by `verify`, which hashes all. The note decides nothing else: without it, or where it differs, a part is hashed.
"""

import contextlib
import time
from pathlib import Path

from longlode.core.sealed_json import read_sealed, write_sealed
from longlode.mining.engine.parts import PartInfo, part_path, read_info, read_summary

VERIFIED_NAME = "verified.parts"
_SAVE_SECONDS = 30.0


class VerifiedParts:
    """Merged parts of a folder, taken by the note or by their bytes."""

    def __init__(self, out: Path, folder: str, *, verify: bool = False) -> None:
        """Read the note. Args: folder, of the note, in `out`; verify: hash every part whatever it says."""
        self._out, self._path = out, out / folder / VERIFIED_NAME
        self._before = {} if verify else self._read()
        self._found: dict[str, list[int]] = {}
        self._saved_at = time.monotonic()

    def info(self, name: str) -> PartInfo | None:
        """Metadata of a part; None when it is missing, torn or changed. Args: name, without its suffix."""
        path = part_path(self._out, name)
        known = self._before.get(name)
        if known is not None and known == _stamp(path):
            info = read_summary(path)
            if info is not None and info.fingerprint == name:
                self._found[name] = known
                return info
        before = _stamp(path)
        info = read_info(path)
        if info is not None and before is not None:
            self._found[name] = before
        return info

    def wrote(self, name: str) -> None:
        """Note a part that was written just now, and save the note now and then."""
        stamp = _stamp(part_path(self._out, name))
        if stamp is not None:
            self._found[name] = stamp
        if time.monotonic() - self._saved_at > _SAVE_SECONDS:
            self.save()

    def forget(self, name: str) -> None:
        """Leave out a part that was removed."""
        self._before.pop(name, None)
        self._found.pop(name, None)

    def save(self) -> None:
        """Write the note: what was found and what others have noted meanwhile; for none, nothing."""
        self._saved_at = time.monotonic()
        others = {name: stamp for name, stamp in self._read().items() if part_path(self._out, name).is_file()}
        noted = {**others, **self._found}
        if noted and noted != self._read():
            with contextlib.suppress(OSError):  # only time is lost without it
                write_sealed(self._path, noted)

    def _read(self) -> dict[str, list[int]]:
        found = read_sealed(self._path)
        return found if isinstance(found, dict) else {}


def _stamp(path: Path) -> list[int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return [about.st_size, about.st_mtime_ns]
