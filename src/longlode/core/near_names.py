"""Hints at names that were perhaps meant, for messages about names that do not exist."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

_NUM_NAMED = 2


def did_you_mean(given: str, known: Iterable[str], prefix: str = "") -> str:
    """ " Did you mean A or B?", of the known names that resemble the given one; "" when none does.

    Args: prefix, put before each of the names.
    """
    close = difflib.get_close_matches(given, list(known), n=_NUM_NAMED)
    return f" Did you mean {' or '.join(prefix + name for name in close)}?" if close else ""


def near_path(given: str | os.PathLike[str]) -> str:
    """ " Did you mean PATH?", of the names beside a path, spelt as the path is; "" for a path that exists."""
    text = os.fspath(given).rstrip("/")
    if os.path.lexists(text):
        return ""
    cut = text.rfind("/") + 1
    folder, name = text[:cut], text[cut:]  # the folder as it was given: a Path would drop "./"
    return did_you_mean(name, names_in(Path(folder or ".")), folder)


def names_in(folder: Path) -> list[str]:
    """Names in a folder; none where it cannot be read."""
    try:
        return sorted(entry.name for entry in folder.expanduser().iterdir())
    except (OSError, RuntimeError):  # RuntimeError: no such user
        return []
