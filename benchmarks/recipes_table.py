"""The table of `benchmarks.recipes`: per arm its loss, what context is worth to it, and its memory, as differences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.claims.mining_measures import CONTEXTS, Held, Measured
from benchmarks.claims.mining_table import interval
from benchmarks.recipes_runs import PLAIN

Found = Mapping[tuple[str, int], Mapping[str, Any]]
"""(arm, seed) -> what `Bench.run` returned."""
STEPS = ((256, 1024), (1024, 4096))
"""Contexts between which a gain is taken: loss after the first less that after the second, of the same targets."""


def table(found: Found, held: Held) -> dict[str, dict[str, Any]]:
    """Per arm: seeds, steps, tokens and operations, and `columns`: name -> mean and, but for PLAIN, interval of the
    difference from it: [mean, low, high], paired by seed and work or question.
    """
    rows: dict[str, dict[str, Any]] = {}
    for arm in dict.fromkeys(arm for arm, _ in found):
        seeds = [seed for name, seed in found if name == arm]
        values = [_columns(found[arm, seed], held) for seed in seeds]
        plain = [_columns(found[PLAIN, seed], held) if (PLAIN, seed) in found else None for seed in seeds]
        columns: dict[str, Any] = {}
        for name, (_, groups) in values[0].items():
            columns[name] = {"mean": float(np.mean([one[name][0] for one in values]))}
            less = [
                one[name][0] - other[name][0]
                for one, other in zip(values, plain, strict=True)
                if other is not None and arm != PLAIN
            ]
            if less:
                columns[name]["less_plain"] = interval(np.stack(less), groups)
        facts = {
            name: float(np.mean([found[arm, seed][name] for seed in seeds]))
            for name in ("steps", "tokens", "flops")
        }
        rows[arm] = {"seeds": len(seeds), **facts, "columns": columns}
    return rows


def _columns(run: Mapping[str, Any], held: Held) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> values of the windows or questions, and the work of each."""
    before, after = (Measured.from_json(run[name]) for name in ("before", "after"))
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for kind, part in held.windows.items():
        losses = before.losses[kind]
        found[f"{kind}: loss after {CONTEXTS[-1]:,}"] = (losses[:, -1], part.works)
        for near, far in STEPS:
            gain = losses[:, CONTEXTS.index(near)] - losses[:, CONTEXTS.index(far)]
            found[f"{kind}: gain {near:,} to {far:,}"] = (gain, part.works)
    for name in held.questions:
        for when, measured in (("", before), (", after SFT", after)):
            numbers = np.arange(len(measured.tasks[name]))
            found[f"{name}{when}: log-probability"] = (measured.tasks[name][:, 0], numbers)
            found[f"{name}{when}: right"] = (measured.tasks[name][:, 1], numbers)
    return found


def as_markdown(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Three tables: compute; text; memory. Differences clear of 0 in bold."""
    unit = rows[PLAIN]["flops"] if PLAIN in rows else next(iter(rows.values()))["flops"]
    compute = [
        ["arm", "seeds", "steps of its own", "tokens of its own", "operations, of plain's with its base"]
    ]
    for arm, row in rows.items():
        share = f"{row['flops'] / unit:.2f}"
        compute.append([arm, str(row["seeds"]), f"{row['steps']:.0f}", f"{row['tokens']:,.0f}", share])
    names = list(next(iter(rows.values()))["columns"])
    text = [name for name in names if ": loss" in name or ": gain" in name]
    memory = [name for name in names if name not in text]
    tables = (compute, _differences(rows, text), _differences(rows, memory))
    return "\n\n".join(_lines(one) for one in tables)


def _differences(rows: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[list[str]]:
    found = [["arm", *names]]
    order = [PLAIN, *(arm for arm in rows if arm != PLAIN)] if PLAIN in rows else list(rows)
    for arm in order:
        found.append([arm, *(_cell(rows[arm]["columns"][name]) for name in names)])
    return found


def _cell(value: Mapping[str, Any]) -> str:
    if "less_plain" not in value:
        return f"{value['mean']:.3f}"
    mean, low, high = value["less_plain"]
    around = "**" if low > 0 or high < 0 else ""
    return f"{around}{mean:+.3f}{around} ({low:+.3f}, {high:+.3f})"


def _lines(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rest))
