"""The tables of `benchmarks.claims.mining`: means, and differences from the random arm with their intervals."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.claims.mining_arms import EVERYTHING, share_in_order
from benchmarks.claims.mining_measures import CONTEXTS, Held, Measured
from benchmarks.claims.mining_pool import Pool

BASELINE = "random"
GAIN = (256, 4096)
"""The gain of far context is the loss after the first less that after the second."""

Runs = dict[tuple[str, int], tuple[np.ndarray, Measured]]
"""(arm, seed) -> the rows it took, what was measured."""


def table(runs: Runs, held: Held, pool: Pool) -> dict[str, dict[str, Any]]:
    """Per arm: seeds, share of rows in order, and per kind of text and per task the means and differences."""
    found: dict[str, dict[str, Any]] = {}
    for arm in dict.fromkeys(arm for arm, _ in runs):
        seeds = [seed for name, seed in runs if name == arm]
        row: dict[str, Any] = {
            "seeds": len(seeds),
            "in_order": float(np.mean([share_in_order(runs[arm, seed][0], pool) for seed in seeds])),
        }
        for kind, part in held.windows.items():
            row[kind] = _of_text(runs, arm, kind, part.works)
        for task in held.questions:
            row[task] = _of_task(runs, arm, task)
        found[arm] = row
    return found


def _of_text(runs: Runs, arm: str, kind: str, works: np.ndarray) -> dict[str, Any]:
    near, far = (CONTEXTS.index(context) for context in GAIN)
    values = {seed: found.losses[kind] for (name, seed), (_, found) in runs.items() if name == arm}
    mean = np.mean(list(values.values()), axis=(0, 1))
    row: dict[str, Any] = {"loss": mean.tolist(), "gain": float(mean[near] - mean[far])}
    less = [
        values[seed] - runs[BASELINE, seed][1].losses[kind]
        for seed in values
        if arm != BASELINE and (BASELINE, seed) in runs
    ]
    if less:
        stacked = np.stack(less)
        row["loss_less_random"] = interval(stacked[:, :, far], works)
        row["gain_less_random"] = interval(stacked[:, :, near] - stacked[:, :, far], works)
    return row


def _of_task(runs: Runs, arm: str, task: str) -> dict[str, Any]:
    values = {seed: found.tasks[task] for (name, seed), (_, found) in runs.items() if name == arm}
    log_prob, hits = np.mean(list(values.values()), axis=(0, 1))
    row: dict[str, Any] = {"log_prob": float(log_prob), "hits": float(hits)}
    less = [
        values[seed][:, 0] - runs[BASELINE, seed][1].tasks[task][:, 0]
        for seed in values
        if arm != BASELINE and (BASELINE, seed) in runs
    ]
    if less:
        row["less_random"] = interval(np.stack(less), np.arange(len(less[0])))
    return row


def interval(values: np.ndarray, works: np.ndarray, draws: int = 2000) -> list[float]:
    """Mean of `[seeds, windows]`, and a 95 % bootstrap interval over seeds and works together: [mean, low, high]."""
    names = np.unique(works)
    cells = np.stack([values[:, works == name].mean(1) for name in names], 1)
    rng = np.random.default_rng(0)
    means = [
        cells[rng.integers(len(cells), size=len(cells))][:, rng.integers(len(names), size=len(names))].mean()
        for _ in range(draws)
    ]
    return [float(cells.mean()), *(float(x) for x in np.quantile(means, (0.025, 0.975)))]


def cells(found: Mapping[str, Mapping[str, Any]], *, strong: str = "") -> list[list[str]]:
    """The table as text, the names of the columns first: of `random` its values, of the others what differs from it.

    Args: strong, put around differences clear of 0.
    """
    columns: list[tuple[str, Callable[[Mapping[str, Any]], tuple[float, list[float] | None]]]] = []
    first = next(iter(found.values()))
    for kind in (key for key, value in first.items() if "gain" in _plain(value)):
        columns += [
            (f"{kind}: loss after {GAIN[1]:,}", partial(_loss, kind=kind)),
            (f"{kind}: gain of {GAIN[0]:,} to {GAIN[1]:,}", partial(_gain, kind=kind)),
        ]
    for task in (key for key, value in first.items() if "hits" in _plain(value)):
        columns.append((f"{task.replace('_', ' ')}: log-probability", partial(_task, task=task)))
    lines = [["arm", "seeds", "rows in order", *(name for name, _ in columns)]]
    for arm, row in found.items():
        name = f"{arm}, {row_factor(arm)}" if row_factor(arm) else arm
        values = [_cell(*value_of(row), strong) for _, value_of in columns]
        lines.append([name, str(row["seeds"]), f"{row['in_order']:.2f}", *values])
    return lines


def _loss(row: Mapping[str, Any], *, kind: str) -> tuple[float, list[float] | None]:
    return row[kind]["loss"][CONTEXTS.index(GAIN[1])], row[kind].get("loss_less_random")


def _gain(row: Mapping[str, Any], *, kind: str) -> tuple[float, list[float] | None]:
    return row[kind]["gain"], row[kind].get("gain_less_random")


def _task(row: Mapping[str, Any], *, task: str) -> tuple[float, list[float] | None]:
    return row[task]["log_prob"], row[task].get("less_random")


def row_factor(arm: str) -> str:
    """Remark on the size of an arm that is not that of the others."""
    return "4 times the tokens" if arm == EVERYTHING else ""


def as_markdown(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The table in Markdown, differences clear of 0 in bold."""
    head, *lines = cells(found, strong="**")
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def show(found: Mapping[str, Mapping[str, Any]], title: str, console: Console) -> None:
    """Print the table."""
    head, *lines = cells(found)
    shown = Table(
        title=f"{title}\nnats per token; random: its values; others: less those of random (95 % over seeds and works)"
    )
    for number, name in enumerate(head):
        shown.add_column(name, justify="right" if number else "left")
    for line in lines:
        shown.add_row(*line)
    console.print(shown)


def _cell(value: float, less: list[float] | None, strong: str) -> str:
    if less is None:
        return f"{value:.3f}"
    mean, low, high = less
    around = strong if low > 0 or high < 0 else ""
    return f"{around}{mean:+.3f}{around} ({low:+.3f}, {high:+.3f})"


def _plain(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
