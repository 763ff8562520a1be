"""From what the user names (files, folders, globs, URLs) to a list of files in a fixed order."""

import glob
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from longlode.core.errors import InputError
from longlode.core.kinds import SELECTION_FOLDER
from longlode.corpus import stores
from longlode.corpus.document import FAILED, SKIPPED
from longlode.corpus.formats import EXPECTED, classify
from longlode.corpus.stores import Entry

Inputs = str | Path | Iterable[str | Path]

_CACHE_FOLDERS = frozenset({"__pycache__", SELECTION_FOLDER})
_GLOB_LETTERS = frozenset("*?[")


@dataclass(frozen=True)
class InputFile:
    """A file to read, or one that is left out and why (`status` set, `kind` empty).

    path: absolute local path, or URL. name: path relative to the input root, unique among the files found.
    kind: "lines", "parquet", "text" or "". compression: "", "gzip" or "zstd". num_bytes: size, -1 if unknown.
    """

    path: str
    name: str
    kind: str
    compression: str = ""
    num_bytes: int = -1
    status: str = ""
    reason: str = ""


def find_files(inputs: Inputs) -> list[InputFile]:
    """Find every file behind the inputs, each once, in the order given and sorted inside folders and globs.

    Folders are walked for known text, source and record suffixes. What is not read is in the list too, with
    its
    reason: hidden files and folders, `__pycache__`, `__selection__`, other suffixes, links to folders, links that lead
      nowhere.
    Raises: InputError for an input that does not exist or that holds nothing to read.
    """
    listed = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if not listed:
        raise InputError(f"No input was given. Expected files, folders, globs or URLs ({EXPECTED}).")
    found: dict[str, InputFile] = {}
    for item in listed:
        for file in _expand(str(item)):
            found.setdefault(file.path, file)
    return _with_unique_names(list(found.values()))


def _expand(given: str) -> list[InputFile]:
    path = stores.local_path(given)
    if stores.is_url(path) and set("*[") & set(path):  # a question mark in a URL begins a query
        return _expand_glob(given, path)
    if not stores.is_url(path) and Path(path).is_dir():  # the root itself may be a link to a folder
        return _expand_folder(given, Entry(path, stores.FOLDER))
    entry = stores.describe(path)
    if entry is None:
        if not stores.is_url(path) and _GLOB_LETTERS & set(path):
            return _expand_glob(given, path)
        raise InputError(
            f"{given} does not exist. Expected a file ({EXPECTED}), a folder of them, a quoted glob or a URL."
        )
    if entry.kind == stores.FOLDER:
        return _expand_folder(given, entry)
    return [_file(entry, _parent(entry.path), explicit=True)]


def _expand_folder(given: str, folder: Entry) -> list[InputFile]:
    files = list(_walk(folder.path, folder.path))
    if not any(file.kind for file in files):
        first = f" (the first: {files[0].name}: {files[0].reason})" if files else ""
        raise InputError(
            f"{given} holds nothing to read: {len(files)} entries, all left out{first}. Expected {EXPECTED}."
        )
    return files


def _expand_glob(given: str, pattern: str) -> list[InputFile]:
    if stores.is_url(pattern):
        store, inner = stores.filesystem(pattern)
        matches = sorted(store.unstrip_protocol(match) for match in store.glob(inner))
    else:
        matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob needs a root
    fixed = pattern[: min(pattern.index(letter) for letter in _GLOB_LETTERS if letter in pattern)]
    root = fixed.rsplit("/", 1)[0]
    if stores.is_url(pattern):  # the store's own spelling of the root, so that names come out relative to it
        store, inner = stores.filesystem(root + "/")
        root = store.unstrip_protocol(inner)
    files: list[InputFile] = []
    for match in matches:
        entry = stores.describe(match)
        if entry is not None:
            files += (
                _walk(entry.path, root)
                if entry.kind == stores.FOLDER
                else [_file(entry, root, explicit=True)]
            )
    if not any(file.kind for file in files):
        raise InputError(f"{given} matches no file that can be read. Expected {EXPECTED}.")
    return files


def _walk(folder: str, root: str) -> Iterable[InputFile]:
    try:
        entries = stores.list_folder(folder)
    except OSError as error:
        reason = f"the folder cannot be listed: {stores.error_text(error)}"
        yield InputFile(folder, _relative(folder, root), "", status=FAILED, reason=reason)
        return
    for entry in entries:
        what = "folder" if entry.kind == stores.FOLDER else "file"
        if entry.base.startswith("."):
            yield _left_out(entry, root, SKIPPED, f"a hidden {what}")
        elif entry.base in _CACHE_FOLDERS and what == "folder":
            yield _left_out(entry, root, SKIPPED, "not a folder of documents")
        elif what == "folder":
            yield from _walk(entry.path, root)
        else:
            yield _file(entry, root, explicit=False)


def _file(entry: Entry, root: str, *, explicit: bool) -> InputFile:
    if not _is_unicode(entry.path):
        return _left_out(entry, root, FAILED, "the file's name is not UTF-8")
    if entry.kind != stores.FILE:
        return _left_out(entry, root, FAILED if "nowhere" in entry.reason else SKIPPED, entry.reason)
    how = classify(entry.base, explicit=explicit)
    if not how.kind:
        return _left_out(entry, root, SKIPPED, how.reason)
    return InputFile(entry.path, _relative(entry.path, root), how.kind, how.compression, entry.num_bytes)


def _left_out(entry: Entry, root: str, status: str, reason: str) -> InputFile:
    path = entry.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return InputFile(path, _relative(path, root), "", "", entry.num_bytes, status, reason)


def _is_unicode(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _parent(path: str) -> str:
    return path.rsplit("/", 1)[0]


def _relative(path: str, root: str) -> str:
    base = root.rstrip("/") + "/"
    return path[len(base) :].lstrip("/") if path.startswith(base) else path.rsplit("/", 1)[-1]


def _with_unique_names(files: list[InputFile]) -> list[InputFile]:
    """Put one more folder before names that files share (`a/x.txt`, `b/x.txt` given alone), until none do."""
    while True:
        counts = Counter(file.name for file in files)
        if len(counts) == len(files):
            return files
        files = [
            replace(file, name=_one_folder_more(file)) if counts[file.name] > 1 else file for file in files
        ]


def _one_folder_more(file: InputFile) -> str:
    parts = file.path.split("/")
    return "/".join(parts[-(file.name.count("/") + 2) :])
