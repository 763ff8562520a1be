"""Descriptions of tasks and metrics, from the records: the report knows no task by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longlode.report.text import as_number, number


@dataclass(frozen=True)
class Description:
    """A metric as its task describes it; see `evaluate.tasks.Metric`."""

    name: str
    about: str
    unit: str
    better: str
    words: str
    headline: bool
    baseline: float | None
    at_baseline: str
    chance: float | None = None

    @property
    def unit_words(self) -> str:
        """The unit in words, "" for a pure number."""
        return "" if self.unit == "ratio" else self.unit.replace("/", " per ")

    @property
    def meaning(self) -> str:
        """Guide to a value: the better direction, the value of chance, the value without effect of the context."""
        told = [f"{self.better} is better"] if self.better else []
        if self.chance is not None:
            told.append(f"chance {self.value(self.chance)}")
        if self.baseline is not None:
            told.append(f"{self.value(self.baseline)}: {self.at_baseline or 'no effect of the context'}")
        return "; ".join(told)

    def value(self, value: float) -> str:
        """A value with its unit: shares in per cent."""
        if self.unit == "share":
            return f"{100 * value:.0f} %"
        if self.unit == "tokens":
            return f"{value:,.0f} tokens"
        unit = {"": "", "ratio": "", "nats/token": " nats per token"}.get(self.unit, f" {self.unit}")
        return f"{number(value)}{unit}"


def task_info(records: Sequence[Mapping[str, Any]], task: str) -> Mapping[str, Any]:
    """Description of a task by the first record that has one; {} without any."""
    for record in records:
        known = record.get("task_info")
        info = known.get(task) if isinstance(known, Mapping) else None
        if isinstance(info, Mapping):
            return info
    return {}


def describe(records: Sequence[Mapping[str, Any]], task: str, metric: str) -> Description:
    """Description of a metric by the records; without one its words are its name, and `hard` is a headline."""
    entries = task_info(records, task).get("metrics")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, Mapping) and entry.get("name") == metric:
            about = str(entry.get("about") or metric)
            return Description(
                name=metric,
                about=about,
                unit=str(entry.get("unit") or ""),
                better=str(entry.get("better") or ""),
                words=str(entry.get("words") or about),
                headline=entry.get("headline") is True,
                baseline=as_number(entry.get("baseline")),
                at_baseline=str(entry.get("at_baseline") or ""),
                chance=as_number(entry.get("chance")),
            )
    return Description(metric, metric, "", "", metric, metric == "hard", None, "")


def curve_tasks(record: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The usable rows of each task that has a curve along the text."""
    known = record.get("curves")
    found = {}
    for task, rows in known.items() if isinstance(known, Mapping) else ():
        usable = [
            row
            for row in (rows if isinstance(rows, list) else [])
            if isinstance(row, dict)
            and all(as_number(row.get(name)) is not None for name in ("start", "stop", "mean"))
        ]
        if usable:
            found[str(task)] = usable
    return found


def curve_rows(record: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The first task that has a curve along the text, and its rows; ("", []) without one."""
    return next(iter(curve_tasks(record).items()), ("", []))


def curve_metric(records: Sequence[Mapping[str, Any]], task: str) -> Description:
    """The metric that a task's curve draws."""
    curve = task_info(records, task).get("curve")
    name = str(curve.get("metric") or "") if isinstance(curve, Mapping) else ""
    return describe(records, task, name or task)
