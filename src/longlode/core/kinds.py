"""Kinds of output folders, as their record.json states them, with the words that messages use for each."""

import os
from pathlib import Path
from typing import Any

import orjson

RECORD_NAME = "record.json"
KINDS = {
    "scores": "scores",
    "selection": "a selection",
    "shards": "token shards",
    "run": "a training run",
    "evaluation": "an evaluation",
    "lm_eval": "an evaluation by lm-eval",
    "lm_eval_tasks": "tasks for lm-eval",
    "comparison": "a comparison",
    "bench": "a bench of mixers",
    "demo": "a demo",
    "model": "a model",
    "token_files": "token files",
    "weights": "weights of a score",
}
LEFTOVERS = {
    "scores": ("parts", "plan", "runs", "shards", "rounds", "fit", "stdin"),
    "run": ("checkpoints",),
    "evaluation": ("examples.parquet", "parts"),
    "lm_eval": ("lm_eval.json",),
    "bench": ("parts",),
}
"""Names that a folder of each kind may hold if its writer was killed before it wrote the record."""
RUNS_FOLDER = "runs"
"""Folder of a scores folder with a file for each run that is on."""
SELECTION_FOLDER = "__selection__"
"""Folder of information beside selected documents, not data; readers of data sets skip names that begin with `__`."""
_DEPTH = 2
_SKIPPED = {"parts", "plan", "rounds", "fit", "checkpoints", "stdin"}
_SKIPPED_BESIDE_PARTS = {"runs", "shards"}
"""Folders of the engine in a scores folder; elsewhere, as in a demo, they hold training runs and token shards."""


def kind_name(kind: Any) -> str:
    """Name a kind in words, also one that this version does not know."""
    return KINDS.get(kind, f"something of kind {kind!r}") if isinstance(kind, str) else "something unknown"


def kind_of(folder: Path) -> str | None:
    """Return the kind that a folder's record states; None without a readable record."""
    try:
        record = orjson.loads((folder / RECORD_NAME).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    kind = record.get("kind") if isinstance(record, dict) else None
    return kind if isinstance(kind, str) else None


def folders_of_kind(folder: Path, kind: str) -> list[Path]:
    """List folders of this kind at most two levels below `folder`, nearest first, then by name."""
    found: list[Path] = []
    level = [folder]
    for _ in range(_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        found += [child for child in level if kind_of(child) == kind]
    return found


def _children(folder: Path) -> list[Path]:
    try:
        skipped = _SKIPPED | (_SKIPPED_BESIDE_PARTS if (folder / "parts").is_dir() else set())
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.is_dir() and entry.name not in skipped and not entry.name.startswith(".")
            ]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def where_it_is(folder: Path, kind: str) -> str:
    """ " It is in A or B.", for messages about a folder that is not of `kind` but has such folders inside; else ""."""
    inside = folders_of_kind(folder, kind)
    if not inside:
        return ""
    named = " and ".join(map(str, inside[:2]))
    return f" There is {'one' if len(inside) == 1 else 'more than one'} inside: {named}."
