"""Search for records below some folders. The report names broken files; they do not stop it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from longlode.core.errors import InputError
from longlode.core.kinds import RECORD_NAME, SELECTION_FOLDER
from longlode.core.near_names import near_path
from longlode.core.records import read_json, read_jsonl
from longlode.core.rows import read_rows

KINDS = ("demo", "scores", "selection", "shards", "run", "evaluation", "lm_eval", "bench")
_MAX_DEPTH = 3
_SKIPPED = {"parts", "checkpoints", "model", "node_modules"}
_SCORE_COLUMNS = (
    "id",
    "source",
    "file",
    "row",
    "num_bytes",
    "num_tokens",
    "score",
    "score_se",
    "strength_mean",
    "strength_max_mean",
    "gain_nats",
    "specificity_mean",
    "repetition",
    "gzip_ratio",
    "status",
    "reason",
)
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """One record.

    name: its folder as the user named it. kind: one of KINDS. record: its fields. written: time, seconds since
    1970.
    """

    name: str
    folder: Path
    kind: str
    record: dict[str, Any]
    written: float = 0.0


@dataclass
class Gathered:
    """All records found. names: of the folders searched. problems: sentences about unreadable pieces."""

    names: list[str] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def of(self, kind: str) -> list[Found]:
        """The records of one kind, in the order of their folders."""
        return [one for one in self.found if one.kind == kind]

    def attempt(self, read: Callable[[Path], T], path: Path) -> T | None:
        """Read a file; when it is missing or broken, note it and return None."""
        try:
            return read(path)
        except (InputError, OSError, pa.ArrowException, UnicodeDecodeError) as error:
            self.problems.append(f"{path} could not be read: {error}")
            return None


def gather(folders: Sequence[Path]) -> Gathered:
    """Collect every record.json (and NAME.record.json) in `folders` and three levels below them.

    Raises: InputError when a folder does not exist, or when there is no record at all.
    """
    gathered = Gathered(names=[str(folder) for folder in folders])
    seen: set[Path] = set()
    for top in map(_folder_of, folders):
        for path in _record_paths(top):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                _take(gathered, top, path)
    if not gathered.found:
        where = ", ".join(map(str, folders))
        told = "".join(f" {problem}" for problem in gathered.problems)
        raise InputError(
            f"no record.json of longlode in {where} or three levels below.{told} "
            "Give folders that longlode score, select, pack, train, evaluate, bench or demo wrote."
        )
    gathered.found = _told_apart(gathered.found)
    return gathered


def _folder_of(given: Path) -> Path:
    """The folder that a name stands for: itself, or of selected documents that of their selection."""
    if given.is_dir():
        return given
    selection = given.parent / SELECTION_FOLDER / given.name
    if selection.is_dir():
        return selection
    what = "is a file that no selection of longlode wrote" if given.exists() else "does not exist"
    near = "" if given.exists() else near_path(given)
    raise InputError(
        f"{given} {what}.{near} Expected folders that longlode wrote, such as scores or a run, or selected documents."
    )


def _told_apart(found: Sequence[Found]) -> list[Found]:
    """Put the parent folder before names that two records of one kind share, e.g. a/scores and b/scores."""
    names = [(one.kind, one.name) for one in found]
    return [
        replace(one, name=f"{_parent(one)}/{one.name}") if names.count((one.kind, one.name)) > 1 else one
        for one in found
    ]


def _parent(one: Found) -> str:
    """The parent of a record's folder; of a selection, that of its documents."""
    parent = one.folder.resolve().parent
    return parent.parent.name if parent.name == SELECTION_FOLDER else parent.name


def _record_paths(top: Path) -> list[Path]:
    paths = []
    for folder, children, files in os.walk(top):
        depth = len(Path(folder).relative_to(top).parts)
        children[:] = sorted(
            child
            for child in children
            if depth < _MAX_DEPTH and child not in _SKIPPED and not child.startswith(".")
        )
        paths += [
            Path(folder) / name
            for name in sorted(files)
            if name == RECORD_NAME or name.endswith("." + RECORD_NAME)
        ]
    return paths


def _take(gathered: Gathered, top: Path, path: Path) -> None:
    record: Any = gathered.attempt(read_json, path)
    if record is None:
        return
    kind = record.get("kind") if isinstance(record, dict) else None
    if kind not in KINDS:
        gathered.problems.append(
            f"{path} is of kind {kind!r}, which this report does not know; it is left out."
        )
        return
    inner = path.parent.relative_to(top).as_posix().replace(f"{SELECTION_FOLDER}/", "")
    if kind == "selection" and not record.get("complete", True):
        gathered.problems.append(f"the selection {inner} is not finished; run the same select command again.")
    name = top.resolve().name if inner == "." else inner
    if path.name != RECORD_NAME:
        name = f"{name}/{path.name.removesuffix('.' + RECORD_NAME)}"
    gathered.found.append(Found(name, path.parent, kind, record, path.stat().st_mtime))


def score_table(gathered: Gathered, scores: Found) -> pa.Table:
    """The rows of a scores folder's parts, in the columns the report shows; absent columns are left out.

    The parts are those that the record names: parts of earlier settings may lie beside them.
    """
    folder = scores.folder / "parts"
    named = scores.record.get("parts")
    if isinstance(named, list):
        names = [str(entry["part"]) for entry in named if isinstance(entry, dict) and "part" in entry]
        paths = [folder / Path(name).name for name in names]
    else:
        paths = sorted(folder.glob("*.parquet"))
    if not paths:
        gathered.problems.append(f"{scores.name} holds no score parts (parts/*.parquet).")
    tables = [table for path in paths if (table := gathered.attempt(_part, path)) is not None]
    return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})


def _part(path: Path) -> pa.Table:
    present = set(pq.read_schema(path).names)
    columns = [name for name in _SCORE_COLUMNS if name in present]
    columns += sorted(name for name in present if name.startswith("extras."))
    # Without this, a folder called `name=value` would add a column or replace one.
    return pq.read_table(path, columns=columns, partitioning=None)


def explained(gathered: Gathered, scores: Found) -> list[dict[str, Any]]:
    """The documents of explain.json that hold segments and pairs; [] when there is no such file."""
    path = scores.folder / "explain.json"
    return _mappings(gathered.attempt(read_json, path)) if path.is_file() else []


def rows_of(gathered: Gathered, found: Found, name: str) -> list[dict[str, Any]]:
    """The rows of a .jsonl or .parquet file in a record's folder; [] when it is missing, which is noted."""
    path = found.folder / name
    if not path.is_file():
        gathered.problems.append(f"{found.name} has no {name}.")
        return []
    return _mappings(gathered.attempt(read_rows if path.suffix == ".parquet" else read_jsonl, path))


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def labels(gathered: Gathered) -> dict[str, str]:
    """Document id -> label, by the demo's record: a mapping in it, or the name of a JSON file beside it."""
    for demo in gathered.of("demo"):
        given = demo.record.get("labels")
        if isinstance(given, str):
            path = (demo.folder / given).resolve()
            if not path.is_relative_to(demo.folder.resolve()):
                gathered.problems.append(
                    f"The labels of {demo.name} lie outside of it, at {given}; not read."
                )
                continue
            given = gathered.attempt(read_json, path)
        if isinstance(given, dict):
            return {str(key): str(value) for key, value in given.items()}
    return {}
