"""Evaluation section: loss by position, task scores with intervals, paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from longlode.report.charts import Bar, Series, bars, legend, lines, matrix
from longlode.report.metrics import curve_metric, curve_rows, curve_tasks, describe, task_info
from longlode.report.read import Found
from longlode.report.text import as_number, compact, number


@dataclass(frozen=True)
class Curve:
    """A curve along the text. about: its meaning, in sentences."""

    task: str
    about: str
    chart: Markup


@dataclass(frozen=True)
class Panel:
    """One chart of a task. about: its meaning. meaning: guide to a value. has_baseline: a value shows no effect."""

    task: str
    about: str
    meaning: str
    has_baseline: bool
    chart: Markup


@dataclass(frozen=True)
class DepthMap:
    """Results by the answer's place in the text and the length, for one model and task."""

    model: str
    task: str
    about: str
    chart: Markup


@dataclass(frozen=True)
class TableLine:
    """A metric at a length. cells: for each model (value, interval) or None. num_examples: of the model with most."""

    length: int
    cells: list[tuple[str, str] | None]
    num_examples: int | None


@dataclass(frozen=True)
class TableRow:
    """A metric of a task at all its lengths. about: the measured quantity; meaning: guide to a value."""

    task: str
    metric: str
    about: str
    meaning: str
    headline: bool
    lines: list[TableLine]


@dataclass(frozen=True)
class ResultsView:
    """Data for the template on all evaluations. rows: of all metrics, those of headlines first."""

    models: list[str]
    legend: Markup
    curves: list[Curve]
    difference: Markup | None
    difference_about: str
    panels: list[Panel]
    depths: list[DepthMap]
    rows: list[TableRow]
    comparisons: list[Mapping[str, Any]]


def model_names(evaluations: Sequence[Found]) -> list[str]:
    """Name of each evaluated model: that of the record, with the folder where two models share it."""
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
    """Lay out evaluations with their example rows, and the results of `evaluate.compare` on pairs of them."""
    found = [one for one, _ in evaluations]
    names = model_names(found)
    summaries = [rows_in(one.record.get("summary"), "mean", "length") for one in found]
    difference, about = _difference(comparisons)
    return ResultsView(
        models=names,
        legend=legend(names),
        curves=_curves(found, names),
        difference=difference,
        difference_about=about,
        panels=_panels(found, names, summaries),
        depths=_depths([(name, rows) for name, (_, rows) in zip(names, evaluations, strict=True)], found),
        rows=_table(found, summaries),
        comparisons=list(comparisons),
    )


def curve(found: Found, task: str = "") -> dict[int, list[dict[str, Any]]]:
    """Length -> the stretches of a task's curve along the text, in order; of the first that has one by default."""
    lengths: dict[int, list[dict[str, Any]]] = {}
    known = curve_tasks(found.record)
    for row in known.get(task or next(iter(known), ""), []):
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


def _curves(evaluations: Sequence[Found], names: Sequence[str]) -> list[Curve]:
    """The curves of every task that has one, those of which more is better (gain from context) first."""
    records = [found.record for found in evaluations]
    tasks = list(dict.fromkeys(task for record in records for task in curve_tasks(record)))
    ordered = sorted(tasks, key=lambda task: curve_metric(records, task).better != "higher")
    drawn = (_curve(task, f"curve-{place}", evaluations, names) for place, task in enumerate(ordered))
    return [one for one in drawn if one is not None]


def _curve(task: str, key: str, evaluations: Sequence[Found], names: Sequence[str]) -> Curve | None:
    """A task's curves at the greatest length that most models have; a model without it is left out."""
    curves = [curve(found, task) for found in evaluations]
    counts: dict[int, int] = {}
    for one in curves:
        for length, part in one.items():
            if len(part) > 1:
                counts[length] = counts.get(length, 0) + 1
    if not counts:
        return None
    length = max(counts, key=lambda length: (counts[length], length))
    series = [_band(name, one[length]) for name, one in zip(names, curves, strict=True) if length in one]
    drawn = curve_metric([found.record for found in evaluations], task)
    chart = lines(
        series,
        key=key,
        title=f"{task}: {drawn.about}",
        x_label="tokens before the predicted one",
        y_label=drawn.unit_words or "mean",
        log_x=True,
        reference=drawn.baseline,
    )
    if drawn.baseline is not None:
        use = f" Where an interval holds {drawn.value(drawn.baseline)}, {drawn.at_baseline or 'no effect is shown'}."
    else:
        falls = "falls" if drawn.better == "lower" else "rises"
        use = f" Where a curve no longer {falls}, more context no longer helps." if drawn.better else ""
    words = f"{drawn.words[:1].upper()}{drawn.words[1:]}"
    about = f"{words} by position, in windows of {length:,} tokens, with 95 % intervals over documents.{use}"
    return Curve(task, about, chart)


def _table(evaluations: Sequence[Found], summaries: Sequence[Sequence[Mapping[str, Any]]]) -> list[TableRow]:
    records = [found.record for found in evaluations]
    found: dict[tuple[str, str], dict[int, list[Mapping[str, Any] | None]]] = {}
    for place, summary in enumerate(summaries):
        for row in summary:
            lengths = found.setdefault((str(row.get("task")), str(row.get("metric"))), {})
            lengths.setdefault(int(row["length"]), [None] * len(summaries))[place] = row
    rows = []
    for (task, metric), lengths in found.items():
        told = describe(records, task, metric)
        about = f"{told.about} ({told.unit_words})" if told.unit_words else told.about
        lines = [_table_line(length, cells) for length, cells in sorted(lengths.items())]
        rows.append(TableRow(task, metric, about, told.meaning, told.headline, lines))
    tasks = list(dict.fromkeys(row.task for row in rows))
    return sorted(rows, key=lambda row: (not row.headline, tasks.index(row.task)))


def _table_line(length: int, rows: Sequence[Mapping[str, Any] | None]) -> TableLine:
    cells: list[tuple[str, str] | None] = []
    for row in rows:
        low, high = (as_number(row.get(name)) if row else None for name in ("low", "high"))
        interval = "" if low is None or high is None else f"{number(low)} to {number(high)}"
        cells.append((number(row["mean"]), interval) if row else None)
    counts = [count for row in rows if row and (count := as_number(row.get("n"))) is not None]
    return TableLine(length, cells, round(max(counts)) if counts else None)


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
                y_label=f"difference, {drawn.unit_words or 'mean'}",
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
            x_label=told.unit_words or told.unit or metric,
            domain=(0.0, 1.0) if told.unit == "share" else None,
            reference=told.chance or told.baseline or None,
        )
        panels.append(Panel(task, told.about, told.meaning, told.baseline is not None, chart))
    return panels


def _depths(
    models: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], found: Sequence[Found]
) -> list[DepthMap]:
    """Headline metrics by depth and length, of tasks whose rows have a depth; one colour scale per metric."""
    records = [one.record for one in found]
    cells: dict[tuple[str, str], dict[str, dict[tuple[int, float], list[float]]]] = {}
    for model, rows in models:
        for row in rows:
            depth, length, task = (
                as_number(row.get("depth")),
                as_number(row.get("length")),
                str(row.get("task")),
            )
            if depth is None or length is None:
                continue
            for metric in _headlines(records, task, row):
                known = cells.setdefault((task, metric), {}).setdefault(model, {})
                known.setdefault((int(length), depth), []).append(float(row[metric]))
    views: list[DepthMap] = []
    for (task, metric), by_model in cells.items():
        told = describe(records, task, metric)
        means = {
            model: {at: float(np.mean(part)) for at, part in known.items()}
            for model, known in by_model.items()
        }
        top = 1.0 if told.unit == "share" else max(0.1, *(max(one.values()) for one in means.values()))
        about = f"{told.about}, {told.unit_words}" if told.unit_words else told.about
        for model, shown in means.items():
            title = f"{task} of {model}: {told.about} by depth and length"
            chart = _depth_chart(shown, f"depth-{len(views)}", title, top)
            if chart is not None:
                views.append(DepthMap(model, task, about, chart))
    return views


def _headlines(records: Sequence[Mapping[str, Any]], task: str, row: Mapping[str, Any]) -> list[str]:
    """The metrics in a row of examples that its task calls headlines."""
    entries = task_info(records, task).get("metrics")
    names = (
        [str(one.get("name")) for one in entries if isinstance(one, Mapping)]
        if isinstance(entries, list)
        else []
    )
    names = [name for name in names if describe(records, task, name).headline] or ["hard"]
    return [name for name in names if as_number(row.get(name)) is not None]


def _depth_chart(means: Mapping[tuple[int, float], float], key: str, title: str, top: float) -> Markup | None:
    lengths, depths = (sorted({at[k] for at in means}) for k in (0, 1))
    if len(depths) < 2:
        return None
    return matrix(
        [[means.get((int(length), depth)) for depth in depths] for length in lengths],
        [f"{length:,.0f}" for length in lengths],
        [compact(depth) for depth in depths],
        key=key,
        title=title,
        x_label="depth of the answer (0: far back, 1: just before)",
        y_label="length",
        top_value=top,
    )
