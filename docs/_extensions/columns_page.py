"""Makes the table of every column of the score results and every metric of the evaluation, from what the code declares.

docs/reference/columns.md includes it. A column or a metric without a description fails the build.
"""

from longlode.evaluate.tasks import TASKS, Metric
from longlode.mining import SCORERS
from longlode.mining.engine.column_meanings import COLUMN_MEANINGS

ZERO_OF_UNIT = {
    "share": "none",
    "nats/token": "every token is predicted with certainty",
    "ratio": "the second list is predicted with certainty",
    "tokens": "no distance",
    "bits/character": "every character is predicted with certainty",
}
"""Meaning of zero by unit, for metrics that declare no baseline at zero."""


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _head(*names: str) -> list[str]:
    return ["", _row(*names), "|" + "---|" * len(names)]


def _metric_zero(metric: Metric) -> str:
    if metric.name == "hits_gained":  # a difference of shares, so 0 is no absence
        return "as many tokens right as with half the context"
    if metric.baseline == 0:
        return metric.at_baseline or "no effect of the context"
    return ZERO_OF_UNIT[metric.unit]


def _no_effect(metric: Metric) -> str:
    return "" if metric.baseline is None else f"{metric.baseline:g}"


def score_columns() -> list[str]:
    """Lines of the tables of the score results: columns of every scorer, then those of each scorer alone."""
    lines = ["## Score results", "", "Columns of `SCORES/parts/*.parquet` that every scorer has."]
    lines += _head("column", "unit", "meaning", "meaning of zero")
    lines += [
        _row(f"`{name}`", column.unit, column.about, column.zero) for name, column in COLUMN_MEANINGS.items()
    ]
    for scorer in sorted(SCORERS.names()):
        extras = SCORERS.get(scorer).extra_columns
        if not extras:
            continue
        lines += ["", f"Columns that only the scorer `{scorer}` has."]
        lines += _head("column", "unit", "meaning", "meaning of zero")
        for column in extras:
            about, _, rest = column.doc.partition("; 0: ")
            zero, _, null = rest.partition("; ")
            about += f"; {null}" if null else ""
            lines.append(_row(f"`{column.column}`", column.unit, about, zero))
    return lines


def metric_tables() -> list[str]:
    """Lines of one table per evaluation task."""
    lines = ["## Metrics of the evaluation", "", "Means in `EVAL/record.json`, with 95 % intervals."]
    for name in sorted(TASKS.names()):
        task = TASKS.get(name)
        lines += ["", f"### {name}", "", f"{task.about[0].upper()}{task.about[1:]}."]
        lines += _head("metric", "unit", "meaning", "better", "value without effect", "meaning of zero")
        lines += [
            _row(f"`{m.name}`", m.unit, m.about, m.better or "neither", _no_effect(m), _metric_zero(m))
            for m in task.metrics
        ]
    return lines


def columns_page() -> str:
    """All tables, as Markdown."""
    return "\n".join([*score_columns(), "", *metric_tables(), ""])
