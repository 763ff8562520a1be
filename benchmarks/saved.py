"""Where results go: `benchmarks/results/<date>-<name>.json`, and for people a table beside it."""

import datetime
import os
import platform
import sys
from pathlib import Path
from typing import Any

from longlode.core.records import versions, write_json

RESULTS = Path(__file__).with_name("results")


def about(module: str) -> dict[str, Any]:
    """What made the numbers: the command of this process, as of `python -m benchmarks.<module>`; machine, versions."""
    return {
        "command": " ".join(["python -m", f"benchmarks.{module}", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": versions(),
    }


def save(name: str, result: dict[str, Any], text: str | None = None) -> None:
    """Write a result as JSON, and its table as Markdown if there is one; say where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.date.today().isoformat()}-{name}.json"
    write_json(path, _with_text_keys(result))
    if text is not None:
        path.with_suffix(".md").write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    print(f"saved {path}{'' if text is None else ' and the table beside it'}")


def _with_text_keys(value: Any) -> Any:
    """The same with every key of every dict as text: JSON has no other keys, results count by length and by label."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_with_text_keys(held) for held in value]
    return value
