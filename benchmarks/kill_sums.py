"""Results of several runs of benchmarks.kill or benchmarks.fuzz, each with another seed, as one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_OF_A_RUN = ("command", "seed", "versions", "machine", "shim", "limit_seconds")


def add_up(paths: Sequence[Path], key: str) -> dict[str, Any]:
    """Add up what --json wrote. Args: key, of a row's name. Returns: as `measure`, and `runs`, what made each."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    rows: dict[str, dict[str, Any]] = {}
    for row in (row for result in results for row in result["rows"]):
        sums = rows.setdefault(row[key], {key: row[key]})
        for name, value in row.items():
            if name == "operations":  # of one undisturbed run
                sums[name] = max(value, sums.get(name, 0))
            elif name != key:
                sums[name] = value + sums.get(name, 0)
    totals = {name: sum(result[name] for result in results) for name in results[0] if name.startswith("num_")}
    return {
        "runs": [{name: result[name] for name in _OF_A_RUN if name in result} for result in results],
        "rows": list(rows.values()),
        **totals,
        "findings": [finding for result in results for finding in result["findings"]],
    }
