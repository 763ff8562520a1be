"""Models of the claims: those that `benchmarks.mixers` has trained, and those that only a claim needs, kept beside."""

import argparse
from typing import Any

from benchmarks.mixers_accuracy import best_settings
from longlode.evaluate.bench import ROW_TASKS, BenchSettings, RowTask, train_model, trained_model

Row = dict[str, Any]

TWO_LAYERS = {"layers": 2, "front": None}
"""Changes that make two layers of the mixer of the table's one layer behind a convolution."""


def models(options: argparse.Namespace, task: str, mixer: str, **changes: Any) -> list[list[Row]]:
    """The rows of each seed's model on a task of the mixers' table.

    Args: mixer, a name, an address, or a stack of letters; changes, of the settings of the table.
    Each model has the better of the table's learning rates, by rows that are not reported.
    Returns: as `models_of`.
    """
    get = trained_model if options.only_records else train_model
    settings = best_settings(options.work, task, mixer, get, **changes)
    return [] if settings is None else models_of(options, ROW_TASKS[task](), mixer, settings)


def models_of(
    options: argparse.Namespace, task: RowTask, mixer: str, settings: BenchSettings
) -> list[list[Row]]:
    """The rows of each seed's model, a row per test length; what no earlier run has trained is trained.

    Returns: fewer seeds than asked for with --only-records, where some are not trained.
    """
    found = []
    for seed in range(options.seeds):
        place = (options.work / task.name, task, mixer, seed, settings)
        rows = trained_model(*place)
        if rows is None and not options.only_records:
            print(f"{task.name}, {mixer}, seed {seed}", flush=True)
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
