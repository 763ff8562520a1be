"""The files of the golden: where they lie, how they are written and read."""

import json
from pathlib import Path
from typing import Any

from .machine import bits_depend_on, to_stored

FOLDER = Path(__file__).parent
CHECKPOINTS = FOLDER / "checkpoints"


def write(name: str, value: dict[str, Any], *, plain: dict[str, Any] | None = None) -> None:
    """Write `name`.json, one entry per line: what its bits depend on, `value` with exact floats, `plain` as it is."""
    stored = {"bits_depend_on": bits_depend_on(), **(plain or {}), **to_stored(value)}
    lines = []
    for section, entries in stored.items():
        if section == "bits_depend_on":
            lines.append(f"{json.dumps(section)}: {json.dumps(entries)}")
            continue
        inner = [f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in entries.items()]
        lines.append(f"{json.dumps(section)}: {{\n" + ",\n".join(inner) + "\n}")
    (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read(name: str) -> dict[str, Any]:
    """Read what `write` wrote."""
    value: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return value
