"""Matching of globs on local paths: sorted, each file once, no cycles through links."""

import fnmatch
import os
import re
from collections.abc import Iterator
from pathlib import Path

GLOB_LETTERS = frozenset("*?[")
_ANY_DEPTH = "**"


def split_pattern(pattern: str) -> tuple[str, list[str]]:
    """Split an absolute pattern into its root folder and its other parts."""
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if GLOB_LETTERS & set(part))
    return "/".join(parts[:first]) or "/", [part for part in parts[first:] if part]


def match_local(pattern: str) -> list[str]:
    """List the paths that an absolute local pattern matches, sorted.

    As in a shell, `*` and `**` match no hidden name, and `**` stands for any number of folders. `**` follows no link
    to a folder; a link matched by another part is followed; files also found without the link are left out
    (`again -> .`).
    """
    root, parts = split_pattern(pattern)
    kept: dict[str, str] = {}
    # A path without links equals its key (the real path) and is preferred.
    for path in sorted(set(_matches(root, parts))):
        key = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))  # noqa: PTH118,PTH119,PTH120
        if key not in kept or path == key:
            kept[key] = path
    return sorted(kept.values())


def _matches(folder: str, parts: list[str]) -> Iterator[str]:
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == _ANY_DEPTH:
        yield from _matches(folder, rest)
        for entry in _entries(folder):
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield from _matches(entry.path, parts)
            elif not rest and not entry.name.startswith("."):
                yield entry.path
    elif GLOB_LETTERS & set(part):
        wanted = re.compile(fnmatch.translate(part))
        for entry in _entries(folder):
            if wanted.match(entry.name) and (part.startswith(".") or not entry.name.startswith(".")):
                yield from _deeper(entry.path, rest)
    else:
        yield from _deeper(folder.rstrip("/") + "/" + part, rest)


def _deeper(path: str, rest: list[str]) -> Iterator[str]:
    if Path(path).is_dir() if rest else os.path.lexists(path):
        yield from _matches(path, rest)


def _entries(folder: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder or "/") as entries:
            return list(entries)
    except OSError:  # as in a shell, a folder that cannot be listed matches nothing
        return []
