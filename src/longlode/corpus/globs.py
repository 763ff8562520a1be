"""What a glob matches: sorted, each file once, and no way through links that lead back."""

import fnmatch
import os
import re
from collections.abc import Iterator
from pathlib import Path

GLOB_LETTERS = frozenset("*?[")
_ANY_DEPTH = "**"


def split_pattern(pattern: str) -> tuple[str, list[str]]:
    """The folder that an absolute pattern begins in, and the rest of it, part by part."""
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if GLOB_LETTERS & set(part))
    return "/".join(parts[:first]) or "/", [part for part in parts[first:] if part]


def match_local(pattern: str) -> list[str]:
    """Paths that an absolute local pattern matches, sorted.

    As in a shell, `*` and `**` match no hidden name, and `**` stands for any number of folders. `**` follows no link
    to a folder; a link that is matched by another part is followed, and what it leads to is left out where it was
    found without the link too (`again -> .`).
    """
    root, parts = split_pattern(pattern)
    kept: dict[str, str] = {}
    # A path that goes through no link equals its key, and wins over those that do.
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
    except OSError:  # as in a shell: what cannot be listed matches nothing
        return []
