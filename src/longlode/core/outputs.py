"""Checks of output paths: nothing is replaced that the same command did not write.

A folder belongs to the kind that its record.json names. It may be written to in three cases only: it is empty; it holds
the same result, made with the same options, so that a run continues or is repeated; or it holds a result of the same
kind and the caller asked to overwrite it. A folder of another kind, or of files that longlode did not write, is always
refused. An existing file is replaced if the caller asked to overwrite it, or knows that nothing is lost.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from longlode.core.errors import InputError
from longlode.core.kinds import KINDS, LEFTOVERS, RECORD_NAME, kind_name, where_it_is
from longlode.core.records import read_record, remove_leftovers, temporary_name

_NUM_NAMED = 3
_MAX_SHOWN = 60
_PROBE = "longlode-writable"


def full_path(path: str | os.PathLike[str]) -> Path:
    """Make `path` absolute; `~` and `~name` are expanded if there is such a home directory, else kept."""
    given = Path(path)
    try:
        return given.expanduser().absolute()
    except RuntimeError:  # a file whose name begins with ~, such as the lock files of office programs
        return given.absolute()


_URL = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?P<rest>[^/].*)", re.DOTALL)


def remote_url(path: str | os.PathLike[str]) -> str | None:
    """Return the URL that a path stands for, None for a local one.

    `Path("s3://bucket/x")` has lost a slash, which is put back; `file://` is local.
    """
    found = _URL.fullmatch(os.fspath(path))
    if found is None or found["protocol"] == "file":
        return None
    return f"{found['protocol']}://{found['rest']}"


def _refuse_url(path: str | os.PathLike[str], what: str) -> None:
    """Raise InputError for an output path that is a URL, also after it was made absolute (`/here/s3:/bucket/x`)."""
    full = full_path(path)
    for number, name in enumerate(full.parts[1:-1], 1):
        url = remote_url("/".join(full.parts[number:])) if name.endswith(":") else None
        if url is None or Path(*full.parts[: number + 1]).exists():
            continue
        raise InputError(
            f"{url} is a URL; {what} can only be written to a local path (score, select and pack also write to stores "
            "such as s3://). Name a local path and copy the result."
        )


def claim_folder(
    out: str | os.PathLike[str],
    kind: str,
    *,
    identity: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    advice: str = "replace what is there with --overwrite",
    make: bool = True,
) -> Path:
    """Check that results of `kind` may be written to the folder `out`, and make the folder.

    Args:
      out: the folder; `~` is expanded.
      kind: one of `kinds.KINDS`.
      identity: fields of the record that must be equal for the existing result to count as the same; {}: any result of
        the kind counts; None: none does. A field may be a function that takes the recorded value and returns a bool.
      overwrite: accept any result of the same kind.
      advice: what to do about another result of the same kind, besides naming another folder.
      make: make the folder, check that it can be written to, and remove unfinished files of killed writers.
    Returns: the absolute path.
    Raises: InputError when the folder holds something else, or cannot be written to.
    """
    _refuse_url(out, KINDS[kind])
    path = full_path(out)
    if path.exists() and not path.is_dir():
        raise InputError(
            f"{path} cannot be used as an output folder: it is a file. Name a new folder for {KINDS[kind]} with -o."
        )
    if (path / RECORD_NAME).is_file():
        _check_record(path, kind, None if identity is None else dict(identity), overwrite, advice)
    elif path.is_dir():
        _check_unclaimed(path, kind)
    if make:
        writable_folder(path)
        remove_leftovers(path)
    return path


def claim_file(
    out: str | os.PathLike[str],
    what: str,
    *,
    replaceable: Callable[[Path], bool] = lambda path: False,
    overwrite: bool = False,
) -> Path:
    """Check that `what` may be written to the file `out`, make its folder, remove temporary files of killed writers.

    Args:
      what: the result in words, e.g. "a report".
      replaceable: whether an existing file may be replaced without --overwrite.
      overwrite: replace whatever file is there.
    Returns: the absolute path.
    Raises: InputError when the file may not be replaced or cannot be written.
    """
    _refuse_url(out, what)
    path = full_path(out)
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected the name of a file for {what}. Name one with -o.")
    if path.exists() and not overwrite and not replaceable(path):
        raise InputError(
            f"{path} exists already and is left as it is; expected a new file for {what}. Name another, or replace it "
            "with --overwrite."
        )
    writable_folder(path.parent)
    remove_leftovers(path.parent, path.name)
    return path


def writable_folder(path: Path) -> Path:
    """Make the folder `path` and check that it can be written to. Raises: InputError with the reason."""
    probe = temporary_name(path / _PROBE)
    try:
        path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path, _PROBE)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{path} cannot be used as an output folder: {error.strerror or error}. "
            "Name a folder that you can write to."
        ) from None
    return path


def _check_unclaimed(path: Path, kind: str) -> None:
    """Refuse a folder without a record that holds more than a killed run of this kind leaves behind."""
    foreign = sorted(
        child.name
        for child in path.iterdir()
        if child.name not in LEFTOVERS.get(kind, ()) and not child.name.startswith(".")
    )
    if foreign:
        named = ", ".join(foreign[:_NUM_NAMED]) + (", ..." if len(foreign) > _NUM_NAMED else "")
        raise InputError(
            f"{path} is not empty ({named}) and is no output folder of longlode; expected a new or empty folder for "
            f"{KINDS[kind]}. Name another, for example {_free_name(path, kind)}."
        )


def _check_record(
    path: Path, kind: str, identity: dict[str, Any] | None, overwrite: bool, advice: str
) -> None:
    """Refuse a folder whose record is of another kind, or of a result made with other options."""
    record = read_record(path)
    if record.get("kind") != kind:
        raise InputError(
            f"{path} holds {kind_name(record.get('kind'))} and is left as it is; expected a new or empty folder for "
            f"{KINDS[kind]}.{where_it_is(path, kind)} Name another folder, for example {_free_name(path, kind)}."
        )
    if overwrite:
        return
    different = [
        line
        for name, value in (identity or {}).items()
        for line in _differences(name, value, record.get(name))
    ]
    if identity is None or different:
        how = f" made with other options ({'; '.join(different[:_NUM_NAMED])})" if different else ""
        raise InputError(
            f"{path} already holds {kind_name(kind)}{how}. Name another folder, for example {_free_name(path, kind)}, "
            f"or {advice}."
        )


def _differences(name: str, asked: Any, recorded: Any) -> list[str]:
    """List the differences between the requested and the recorded value of an option, one line per value."""
    if callable(asked):
        return [] if asked(recorded) else [name]
    asked = orjson.loads(orjson.dumps(asked))  # tuples become lists, as in the record
    if isinstance(asked, dict) and isinstance(recorded, dict):
        return [
            line
            for key in sorted({*asked, *recorded})
            for line in _differences(f"{name}.{key}", asked.get(key), recorded.get(key))
        ]
    if asked == recorded:
        return []
    return [f"{name}: there {_short(recorded)}, now {_short(asked)}"]


def _short(value: Any) -> str:
    written = value if isinstance(value, str) else orjson.dumps(value).decode()
    return written if len(written) <= _MAX_SHOWN else f"{written[:_MAX_SHOWN]}..."


def _free_name(path: Path, kind: str) -> Path:
    """Return an unused name beside `path`."""
    stem = path.name or "longlode"
    names = [stem if stem.endswith(kind) else f"{stem}-{kind}"]
    names += [f"{names[0]}-{number}" for number in range(2, 1000)]
    candidates = (path.with_name(name) for name in names)
    return next((candidate for candidate in candidates if not candidate.exists()), path / kind)
