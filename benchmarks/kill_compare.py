"""What two runs of a command must have in common: every file, byte for byte, but for the times in it.

    file                       what does not count
    record.json, any folder,
    and shards/*.json          seconds (at any depth), num_reused, resumed_from and saved times of sessions (_TIMES)
    metrics.jsonl              seconds, tokens_per_second, mfu; matrix_flops_per_second in record.json
    plan/verified.parts        times of the parts that it names
    checkpoints/*/state.json   seconds; and so its size and sha256 in the manifest.json beside it

Everything else counts: names, and all bytes of parts, shards, weights, moments, examples, pages.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from longlode.core.sealed_json import read_sealed
from longlode.mining.engine.verified import VERIFIED_NAME

_TIMES = frozenset(
    {"seconds", "tokens_per_second", "mfu", "matrix_flops_per_second", "num_reused", "resumed_from"}
)
_JSON = ("record.json", "state.json", "manifest.json")


def snapshot(folder: Path) -> dict[str, str]:
    """A hash of the comparable content of every file below `folder`, by relative name; folders are "folder"."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = "folder" if path.is_dir() else hashlib.sha256(content(path)).hexdigest()
    return found


def content(path: Path) -> bytes:
    """The bytes of a file that count."""
    data = path.read_bytes()
    if path.name == VERIFIED_NAME:
        noted = read_sealed(path)
        return data if noted is None else _plain({name: stamp[0] for name, stamp in noted.items()})
    try:
        if path.name in _JSON or path.parent.name == "shards":
            return _plain(_without_times(json.loads(data), path.name))
        if path.name == "metrics.jsonl":
            return b"\n".join(_plain(_without_times(json.loads(line), "")) for line in data.splitlines())
    except ValueError:  # torn: then all of it counts
        return data
    return data


def _without_times(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        kept = {key: _without_times(item, name) for key, item in value.items() if key not in _TIMES}
        if name == "manifest.json" and isinstance(kept.get("files"), dict):
            kept["files"].pop("state.json", None)
        return kept
    if isinstance(value, list):
        return [_without_times(item, name) for item in value]
    return value


def _plain(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def compare(wanted: dict[str, str], found: dict[str, str]) -> dict[str, list[str]]:
    """Where two snapshots differ. Returns: "missing", "leftover" and "differs", each the names, empty ones left out."""
    sorted_out = {
        "missing": [name for name in wanted if name not in found],
        "leftover": [name for name in found if name not in wanted],
        "differs": [name for name in wanted if name in found and found[name] != wanted[name]],
    }
    return {kind: names for kind, names in sorted_out.items() if names}
