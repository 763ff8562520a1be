"""How results get to disk: whole or not at all, and readable by anything that reads JSON.

Every output folder has a `record.json` with a `kind` ("scores", "selection", "shards", "run", "evaluation", "demo"),
the versions that made it and its settings; `longlode report` reads nothing else to know what a folder is.
"""

import contextlib
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from longlode.core.errors import InputError

RECORD_NAME = "record.json"
_PACKAGES = ("longlode", "torch", "transformers", "tokenizers", "numpy", "pyarrow")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it over `path`, on error remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut; a file system that cannot sync folders is left as it is."""
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
    """Read a JSON file. Raises InputError that names the file when it is missing or is not JSON."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
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
    """Read JSON lines; a torn last line (a killed writer) is left out, any other bad line raises InputError."""
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
    """Write `folder/record.json`: the kind, the versions at work, and `fields`."""
    write_json(folder / RECORD_NAME, {"kind": kind, "made_with": versions(), **fields})


def read_record(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """Read `folder/record.json`. Raises InputError when it is missing or of another kind than `kind`."""
    path = folder / RECORD_NAME
    if not path.is_file():
        raise InputError(f"{folder} is not a longlode output folder: it has no {RECORD_NAME}.")
    record: dict[str, Any] = read_json(path)
    if kind is not None and record.get("kind") != kind:
        raise InputError(f"{folder} holds {record.get('kind')!r}, expected {kind!r}.")
    return record


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that shape a result; absent packages are left out."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
