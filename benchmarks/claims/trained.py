"""Models of the claims: those that `benchmarks.mixers` has trained, and those that only a claim needs, kept beside."""

import argparse
import dataclasses
from typing import Any

from benchmarks.mixers_accuracy import settings_of
from longlode.evaluate.bench import ROW_TASKS, train_model, trained_model

Row = dict[str, Any]


def models(options: argparse.Namespace, task: str, mixer: str, **changes: Any) -> list[list[Row]]:
    """The rows of each seed's model: a row per test length.

    Args: mixer, a name, an address, or the letters of a stack; changes, of the settings of the mixers' table.
    Returns: fewer seeds than asked for with --only-records, where some are not trained.
    """
    settings = dataclasses.replace(settings_of(task), **changes)
    found = []
    for seed in range(options.seeds):
        place = (options.work / task, ROW_TASKS[task](), mixer, seed, settings)
        rows = trained_model(*place)
        if rows is None and not options.only_records:
            print(f"{task}, {mixer}, seed {seed}", flush=True)
            rows = train_model(*place)
        if rows is not None:
            found.append(rows)
    return found


def values(found: list[list[Row]], length: int | None = None, of: str = "accuracy") -> list[float]:
    """A number per seed, at a test length or at the longest."""
    chosen = [next((row for row in rows if row["length"] == length), rows[-1]) for rows in found]
    return [row[of] for row in chosen]


def cell(numbers: list[float], digits: int = 2) -> str:
    """The mean, and in brackets the least and the greatest of several seeds."""
    if not numbers:
        return "–"
    mean = f"{sum(numbers) / len(numbers):.{digits}f}"
    if len(numbers) == 1:
        return mean
    return f"{mean} ({min(numbers):.{digits}f}-{max(numbers):.{digits}f})"
