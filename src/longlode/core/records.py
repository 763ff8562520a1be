"""Results on disk: written completely or not at all, as JSON.

Every output folder has a `record.json` with a `kind` (one of `kinds.KINDS`), the versions that made it and its
settings; `longlode report` identifies a folder by it alone.
"""

import contextlib
import os
import platform
import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from longlode.core.errors import InputError
from longlode.core.kinds import RECORD_NAME, kind_name, where_it_is
from longlode.core.near_names import near_path
from longlode.core.processes import is_gone, process_tag

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<tag>[0-9a-f]{8}-\d+-\d+)\.tmp(?:\.\w+)?", re.DOTALL)
"""Pattern of the names that `temporary_name` makes, and of the files beside them while they are filled (`.spool`)."""
_PACKAGES = ("longlode", "torch", "transformers", "tokenizers", "numpy", "pyarrow")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it over `path`, on error remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new, hidden folder beside `path`; on success sync its files and rename it to `path`, on error remove it.

    `path` must not exist, or be an empty folder. Temporary folders of killed writers of `path` are removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, path.name)
    temporary = temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in (child for child in temporary.rglob("*") if child.is_file()):
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        sync_folder(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_name(path: Path) -> Path:
    """Name the file or folder beside `path` in which this process prepares it: `.NAME.WRITER.tmp`, with its
    `process_tag`, so that no two processes share one, even on different machines.
    """
    return path.with_name(f".{path.name}.{process_tag()}.tmp")


def remove_leftovers(folder: Path, name: str | None = None, *, sole_writer: bool = False) -> int:
    """Remove temporary files that killed writers left in `folder` (see `temporary_name`).

    Args:
      name: only those for the file or folder of this name; None: for any.
      sole_writer: the caller holds the `write_lock` for these, so that all files of other processes are
        abandoned. Without it only files are removed whose writer has provably ended.
    Returns: the number removed. One that cannot be removed is left.
    """
    own = process_tag()
    removed = 0
    for leftover in folder.iterdir() if folder.is_dir() else ():
        found = _TEMPORARY.fullmatch(leftover.name)
        if found is None or found["tag"] == own or name not in (None, found["name"]):
            continue
        if not (sole_writer or is_gone(found["tag"])):
            continue
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                leftover.unlink()
        removed += not leftover.exists()
    return removed


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut; does nothing on a file system that cannot sync folders."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(
            orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        )


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises InputError that names the file when it cannot be read or is not JSON."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from None


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Append one JSON line and flush it."""
    with path.open("ab") as stream:
        stream.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON lines, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        for row in rows:
            stream.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; an incomplete last line (a killed writer) is left out, any other bad line raises InputError."""
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            if number == len(lines):
                break
            raise InputError(f"{path}, line {number}: not valid JSON ({error}).") from None
    return rows


def write_record(folder: Path, kind: str, **fields: Any) -> None:
    """Write `folder/record.json`: the kind, the versions of the software, and `fields`."""
    write_json(folder / RECORD_NAME, {"kind": kind, "made_with": versions(), **fields})


def read_record(folder: str | os.PathLike[str], kind: str | None = None) -> dict[str, Any]:
    """Read `folder/record.json`.

    Raises: InputError when it is missing or of another kind than `kind`; the message names a folder inside that is of
      the kind, if there is one.
    """
    folder = Path(folder)
    path = folder / RECORD_NAME
    expected = "" if kind is None else f" Expected {kind_name(kind)}."
    if not path.is_file():
        what = (
            f"is not a longlode output folder: it has no {RECORD_NAME}"
            if folder.is_dir()
            else "is a file, not a longlode output folder"
            if folder.exists()
            else "does not exist"
        )
        near = "" if folder.exists() else near_path(folder)
        raise InputError(f"{folder} {what}.{near}{expected}{where_it_is(folder, kind) if kind else ''}")
    record = read_json(path)
    if not isinstance(record, dict):
        raise InputError(f"{path} is not a record: expected a JSON object. Make the folder again.")
    if kind is not None and record.get("kind") != kind:
        found = kind_name(record.get("kind"))
        raise InputError(f"{folder} holds {found}.{expected}{where_it_is(folder, kind)}")
    return record


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that shape a result; absent packages are left out."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
