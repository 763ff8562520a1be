"""The section on evaluation: loss by position, task scores with intervals, paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from longlode.report.charts import Bar, Series, bars, legend, lines, matrix
from longlode.report.metrics import curve_metric, curve_rows, describe
from longlode.report.read import Found
from longlode.report.text import as_number, compact


@dataclass(frozen=True)
class Panel:
    """One chart of a task. about: what it shows, in a clause. better: "higher", "lower" or ""."""

    task: str
    about: str
    better: str
    chart: Markup


@dataclass(frozen=True)
class DepthMap:
    """Where in the text the answer stood, against the length, for one model and task."""

    model: str
    task: str
    about: str
    chart: Markup


@dataclass(frozen=True)
class ResultsView:
    """What the template needs of all evaluations."""

    models: list[str]
    legend: Markup
    positions: Markup | None
    positions_about: str
    position_length: int | None
    difference: Markup | None
    difference_about: str
    panels: list[Panel]
    depths: list[DepthMap]
    rows: list[tuple[str, Mapping[str, Any]]]
    comparisons: list[Mapping[str, Any]]


def model_names(evaluations: Sequence[Found]) -> list[str]:
    """What to call each evaluated model: its name in the record, with the folder where two share it."""
    names = [str(found.record.get("model") or found.name) for found in evaluations]
    return [
        f"{name} ({found.name})" if names.count(name) > 1 else name
        for name, found in zip(names, evaluations, strict=True)
    ]


def rows_in(value: Any, *needed: str) -> list[dict[str, Any]]:
    """The entries of a list that are mappings with a finite number under each of `needed`."""
    rows = [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
    return [row for row in rows if all(as_number(row.get(name)) is not None for name in needed)]


def results_view(
    evaluations: Sequence[tuple[Found, Sequence[Mapping[str, Any]]]], comparisons: Sequence[Mapping[str, Any]]
) -> ResultsView:
    """Lay out evaluations with their example rows, and what `evaluate.compare` said of pairs of them."""
    found = [one for one, _ in evaluations]
    names = model_names(found)
    summaries = [rows_in(one.record.get("summary"), "mean", "length") for one in found]
    positions, positions_about, length = _positions(found, names)
    difference, about = _difference(comparisons)
    return ResultsView(
        models=names,
        legend=legend(names),
        positions=positions,
        positions_about=positions_about,
        position_length=length,
        difference=difference,
        difference_about=about,
        panels=_panels(found, names, summaries),
        depths=[
            view
            for index, (name, (_, rows)) in enumerate(zip(names, evaluations, strict=True))
            for view in _depths(name, rows, f"depth-{index}")
        ],
        rows=[(name, row) for name, summary in zip(names, summaries, strict=True) for row in summary],
        comparisons=list(comparisons),
    )


def curve(found: Found) -> dict[int, list[dict[str, Any]]]:
    """Length -> the stretches of its curve along the text, in order."""
    lengths: dict[int, list[dict[str, Any]]] = {}
    for row in curve_rows(found.record)[1]:
        lengths.setdefault(int(as_number(row.get("length")) or 0), []).append(row)
    return {length: sorted(part, key=lambda row: row["start"]) for length, part in lengths.items()}


def _middle(row: Mapping[str, Any]) -> float:
    """The geometric middle of a stretch of positions."""
    return float(np.sqrt(max(1, row["start"]) * max(1, row["stop"])))


def _edge(row: Mapping[str, Any], name: str) -> float:
    value = as_number(row.get(name))
    return float(row["mean"]) if value is None else value


def _band(name: str, part: Sequence[Mapping[str, Any]]) -> Series:
    return Series(
        name,
        [_middle(row) for row in part],
        [float(row["mean"]) for row in part],
        [_edge(row, "low") for row in part],
        [_edge(row, "high") for row in part],
        points=True,
    )


def _positions(evaluations: Sequence[Found], names: Sequence[str]) -> tuple[Markup | None, str, int | None]:
    """The curves at the greatest length that most models have, and what they show; a model without it is left out."""
    curves = [curve(found) for found in evaluations]
    counts: dict[int, int] = {}
    for one in curves:
        for length, part in one.items():
            if len(part) > 1:
                counts[length] = counts.get(length, 0) + 1
    if not counts:
        return None, "", None
    length = max(counts, key=lambda length: (counts[length], length))
    series = [_band(name, one[length]) for name, one in zip(names, curves, strict=True) if length in one]
    records = [found.record for found in evaluations]
    task = next(task for task, _ in map(curve_rows, records) if task)
    drawn = curve_metric(records, task)
    chart = lines(
        series,
        key="positions",
        title=f"{task}: {drawn.about}",
        x_label="tokens before the predicted one",
        y_label=_unit_words(drawn.unit),
        log_x=True,
    )
    return chart, drawn.words, length


def _unit_words(unit: str) -> str:
    return unit.replace("/", " per ") or "mean"


def _difference(comparisons: Sequence[Mapping[str, Any]]) -> tuple[Markup | None, str]:
    for comparison in comparisons:
        task, rows = curve_rows(comparison)
        longest = max((row.get("length") or 0 for row in rows), default=0)
        part = sorted((row for row in rows if (row.get("length") or 0) == longest), key=_middle)
        if len(part) > 1:
            about = f"{comparison.get('b')} minus {comparison.get('a')}"
            drawn = curve_metric([comparison], task)
            chart = lines(
                [_band(about, part)],
                key="difference",
                title=f"Difference of {drawn.words}, {about}",
                x_label="tokens before the predicted one",
                y_label=f"difference, {_unit_words(drawn.unit)}",
                log_x=True,
                reference=0.0,
            )
            return chart, about
    return None, ""


def _panels(
    evaluations: Sequence[Found], names: Sequence[str], summaries: Sequence[Sequence[Mapping[str, Any]]]
) -> list[Panel]:
    records = [found.record for found in evaluations]
    pairs = dict.fromkeys(
        (str(row.get("task")), str(row.get("metric"))) for summary in summaries for row in summary
    )
    along = {task for task, _ in map(curve_rows, records) if task}  # has a chart of its own above
    panels: list[Panel] = []
    for task, metric in pairs:
        told = describe(records, task, metric)
        if not told.headline or task in along:
            continue
        blocks: dict[int, list[Bar]] = {}
        for series, (name, summary) in enumerate(zip(names, summaries, strict=True)):
            for row in summary:
                if (row.get("task"), row.get("metric")) == (task, metric):
                    low, high = as_number(row.get("low")), as_number(row.get("high"))
                    bar = Bar(name, row["mean"], low, high, series)
                    blocks.setdefault(int(row["length"]), []).append(bar)
        chart = bars(
            [(f"{length:,} tokens", block) for length, block in sorted(blocks.items())],
            key=f"task-{len(panels)}",
            title=f"{task}: {told.about}",
            x_label=told.unit or metric,
            domain=(0.0, 1.0) if told.unit == "share" else None,
            reference=told.baseline or None,
        )
        panels.append(Panel(task, told.about, told.better, chart))
    return panels


def _depths(model: str, rows: Sequence[Mapping[str, Any]], key: str) -> list[DepthMap]:
    """Mean gain by depth and length, for tasks whose rows have a depth and a gain."""
    cells: dict[str, dict[tuple[int, float], list[float]]] = {}
    for row in rows:
        depth, gain, length = (as_number(row.get(name)) for name in ("depth", "gain", "length"))
        if depth is not None and gain is not None and length is not None:
            cells.setdefault(str(row.get("task")), {}).setdefault((int(length), depth), []).append(gain)
    views: list[DepthMap] = []
    for task, means in cells.items():
        lengths = sorted({length for length, _ in means})
        depths = sorted({depth for _, depth in means})
        if len(depths) < 2:
            continue
        values = [
            [float(np.mean(means[at])) if (at := (n, d)) in means else None for d in depths] for n in lengths
        ]
        chart = matrix(
            values,
            [f"{length:,}" for length in lengths],
            [compact(depth) for depth in depths],
            key=f"{key}-{len(views)}",
            title=f"{task} of {model}: gain by depth and length",
            x_label="depth of the answer (0: far back, 1: just before)",
            y_label="length",
            top_value=max(0.1, max(value for line in values for value in line if value is not None)),
        )
        views.append(DepthMap(model, task, "nats per token that the line with the answer gives", chart))
    return views
