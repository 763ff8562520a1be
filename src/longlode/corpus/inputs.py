"""Search for input files: from files, folders, globs and URLs to a list in a fixed order."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from longlode.core.errors import InputError
from longlode.core.kinds import RECORD_NAME, SELECTION_FOLDER
from longlode.core.names import printable
from longlode.core.near_names import near_path
from longlode.core.outputs import full_path
from longlode.core.records import read_record
from longlode.corpus import stores
from longlode.corpus.document import FAILED, SKIPPED
from longlode.corpus.formats import ARROW, EXPECTED, TEXT, classify, stem
from longlode.corpus.globs import GLOB_LETTERS, match_local
from longlode.corpus.saved_datasets import data_files
from longlode.corpus.stores import Entry

Inputs = str | Path | Iterable[str | Path]

_CACHE_FOLDERS = frozenset({"__pycache__", SELECTION_FOLDER})


@dataclass(frozen=True)
class InputFile:
    """A file to read, or one that is left out (`status` and `reason` set, `kind` empty).

    path: absolute local path, or URL. name: path relative to the input root, unique among the files found.
    kind: "lines", "parquet", "arrow", "text" or "". compression: "", "gzip" or "zstd". num_bytes: size, -1 if
    unknown. source: the source of documents that name none (see `Document`).
    """

    path: str
    name: str
    kind: str
    compression: str = ""
    num_bytes: int = -1
    source: str = ""
    status: str = ""
    reason: str = ""

    @property
    def is_costly(self) -> bool:
        """True where bytes cost more to read again than to hand to another process: remote or compressed."""
        return bool(self.compression) or stores.is_url(self.path)


def find_files(inputs: Inputs, *, exclude: Path | None = None) -> list[InputFile]:
    """Find every file behind the inputs, each once, in the order given and sorted inside folders and globs.

    Folders are walked for known text, source and record suffixes. Entries that are not read are in the list too, with
    the reason: hidden files and folders, `__pycache__`, `__selection__`, other suffixes, links to folders, links to
    nothing, output folders of longlode.

    Args: exclude, a local folder (a run's own output) that globs and folders skip without listing it.
    Raises: InputError for an input that does not exist or that holds nothing to read.
    """
    listed = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if not listed:
        raise InputError(f"No input was given. Expected files, folders, globs or URLs ({EXPECTED}).")
    own = None if exclude is None else full_path(exclude).resolve()
    found: dict[str, InputFile] = {}
    for item in listed:
        # Keyed by the system's path: names that differ only in bytes that are not UTF-8 stay distinct.
        for path, file in _expand(str(item), own):
            found.setdefault(path, file)
    return _with_unique_names(list(found.values()))


def _expand(given: str, own: Path | None) -> list[tuple[str, InputFile]]:
    """Expand one input to files: (the system's path, file)."""
    path = stores.local_path(given)
    if stores.is_url(path) and set("*[") & set(path):  # a question mark in a URL begins a query
        return _expand_glob(given, path, own)
    if not stores.is_url(path) and Path(path).is_dir():  # the root itself may be a link to a folder
        return _expand_folder(given, Entry(path, stores.FOLDER), own)
    entry = stores.describe(path)
    if entry is None:
        if not stores.is_url(path) and GLOB_LETTERS & set(path):
            return _expand_glob(given, path, own)
        near = "" if stores.is_url(path) else printable(near_path(given))
        raise InputError(
            f"{printable(given)} does not exist.{near} Expected a file ({EXPECTED}), a folder of them, a quoted glob "
            "or a URL."
        )
    if entry.kind == stores.FOLDER:
        return _expand_folder(given, entry, own)
    return [(entry.path, _file(entry, _parent(entry.path), explicit=True))]


def _expand_folder(given: str, folder: Entry, own: Path | None) -> list[tuple[str, InputFile]]:
    found = list(_walk(folder.path, folder.path, own))
    files = [file for _, file in found]
    if not any(file.kind for file in files):
        first = f" (the first: {files[0].name}: {files[0].reason})" if files else ""
        raise InputError(
            f"{printable(given)} holds nothing to read: {len(files)} entries, all left out{first}. Expected "
            f"{EXPECTED}."
        )
    return found


def _expand_glob(given: str, pattern: str, own: Path | None) -> list[tuple[str, InputFile]]:
    fixed = pattern[: min(pattern.index(letter) for letter in GLOB_LETTERS if letter in pattern)]
    root = fixed.rsplit("/", 1)[0]
    if stores.is_url(pattern):
        entries: list[Entry | None] = [*stores.match_remote(pattern)]
        # The store's own spelling of the root, so that names come out relative to it.
        store, inner = stores.filesystem(root + "/")
        root = store.unstrip_protocol(inner)
    else:
        entries = [stores.describe(path) for path in match_local(pattern) if not _is_own(path, own)]
    found: list[tuple[str, InputFile]] = []
    outputs: dict[str, bool] = {}
    for entry in entries:
        if entry is None:
            continue
        if entry.kind == stores.FOLDER:
            found += _walk(entry.path, root, own) if not _is_output(entry.path) else [_output(entry, root)]
        elif not _in_output(entry.path, root, outputs):
            found.append((entry.path, _file(entry, root, explicit=True)))
    if not any(file.kind for _, file in found):
        raise InputError(f"{printable(given)} matches no file that can be read. Expected {EXPECTED}.")
    return found


def _walk(folder: str, root: str, own: Path | None) -> Iterable[tuple[str, InputFile]]:
    try:
        entries = stores.list_folder(folder)
    except OSError as error:
        reason = f"the folder cannot be listed: {stores.error_text(error)}"
        yield folder, InputFile(folder, _relative(folder, root), "", status=FAILED, reason=reason)
        return
    listed = data_files(folder) if any(entry.base.endswith(".arrow") for entry in entries) else None
    for entry in entries:
        what = "folder" if entry.kind == stores.FOLDER else "file"
        if _is_own(entry.path, own):
            continue
        if entry.base.startswith("."):
            yield entry.path, _left_out(entry, root, SKIPPED, f"a hidden {what}")
        elif entry.base in _CACHE_FOLDERS and what == "folder":
            yield entry.path, _left_out(entry, root, SKIPPED, "not a folder of documents")
        elif what == "folder":
            yield from [_output(entry, root)] if _is_output(entry.path) else _walk(entry.path, root, own)
        elif listed is not None and entry.base.endswith(".arrow") and entry.base not in listed:
            reason = "a cache of the saved dataset, which state.json does not list"
            yield entry.path, _left_out(entry, root, SKIPPED, reason)
        else:
            yield entry.path, _file(entry, root, explicit=False)


def _is_own(path: str, own: Path | None) -> bool:
    return own is not None and not stores.is_url(path) and Path(path).resolve().is_relative_to(own)


def _is_output(folder: str) -> bool:
    """Return True if longlode wrote this local folder: scores, shards, runs and the like."""
    if stores.is_url(folder) or not (Path(folder) / RECORD_NAME).is_file():
        return False
    try:
        record = read_record(Path(folder))
    except InputError:
        return False
    return isinstance(record, dict) and isinstance(record.get("kind"), str) and "made_with" in record


def _in_output(path: str, root: str, known: dict[str, bool]) -> bool:
    """Return True if a file lies in an output folder below `root`. Args: known, a cache of answers by folder."""
    folder = _parent(path)
    if len(folder) <= len(root.rstrip("/")):
        return False
    if folder not in known:
        known[folder] = _is_output(folder) or _in_output(folder, root, known)
    return known[folder]


def _output(entry: Entry, root: str) -> tuple[str, InputFile]:
    return entry.path, _left_out(entry, root, SKIPPED, "an output folder of longlode")


def _file(entry: Entry, root: str, *, explicit: bool) -> InputFile:
    if not _is_unicode(entry.path):
        return _left_out(entry, root, FAILED, "the file's name is not UTF-8")
    if entry.kind != stores.FILE:
        return _left_out(entry, root, FAILED if "nowhere" in entry.reason else SKIPPED, entry.reason)
    how = classify(entry.base, explicit=explicit)
    if not how.kind:
        return _left_out(entry, root, SKIPPED, how.reason)
    source = _source(entry.path, root, how.kind)
    return InputFile(
        entry.path, _relative(entry.path, root), how.kind, how.compression, entry.num_bytes, source
    )


def _source(path: str, root: str, kind: str) -> str:
    """Return the source of a file's documents that name none."""
    if kind == ARROW and data_files(_parent(path)) is not None:
        return _folder_name(_parent(path))
    if kind != TEXT:
        return stem(path)
    below = _relative(path, root).rpartition("/")[0]
    return below or _folder_name(_parent(path)) or stem(path)


def _folder_name(folder: str) -> str:
    """Return the last part of a folder's path without following links; "." and ".." are resolved."""
    name = folder.rstrip("/").rsplit("/", 1)[-1]
    return Path(folder).resolve().name if name in ("", ".", "..") and not stores.is_url(folder) else name


def _left_out(entry: Entry, root: str, status: str, reason: str) -> InputFile:
    path, root = printable(entry.path), printable(root)
    below = _relative(path, root).rpartition("/")[0]
    source = below or _folder_name(_parent(path))
    return InputFile(path, _relative(path, root), "", "", entry.num_bytes, source, status, reason)


def _is_unicode(path: str) -> bool:
    return printable(path) == path


def _parent(path: str) -> str:
    return path.rsplit("/", 1)[0]


def _relative(path: str, root: str) -> str:
    base = root.rstrip("/") + "/"
    return path[len(base) :].lstrip("/") if path.startswith(base) else path.rsplit("/", 1)[-1]


def _with_unique_names(files: list[InputFile]) -> list[InputFile]:
    """Prefix names that files share with one more folder each (`a/x.txt`, `b/x.txt`), until all differ.

    Paths with the same `printable` form get a number.
    """
    while True:
        counts = Counter(name for name, _ in {(file.name, file.path) for file in files})
        longer = [_one_folder_more(file) if counts[file.name] > 1 else file.name for file in files]
        if longer == [file.name for file in files]:
            break
        files = [replace(file, name=name) for file, name in zip(files, longer, strict=True)]
    names: set[str] = set()
    for number, file in enumerate(files):
        name, copy = file.name, 1
        while name in names:
            copy += 1
            name = f"{file.name}~{copy}"
        names.add(name)
        files[number] = replace(file, name=name)
    return files


def _one_folder_more(file: InputFile) -> str:
    parts = file.path.split("/")
    return "/".join(parts[-(file.name.count("/") + 2) :])
