"""The AUC with which scores tell labelled documents apart: a chart, and the same as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from longlode.report.charts import Bar, bars, legend
from longlode.report.text import as_number, clipped


@dataclass(frozen=True)
class Entry:
    """One AUC. control: class compared with the real documents, "" if unnamed. num: (real, control)."""

    control: str
    score: str
    value: float
    low: float | None
    high: float | None
    num: tuple[int | None, int | None]


@dataclass(frozen=True)
class AucTable:
    """One row per control. scores: the columns. rows: (control, how it is made, a (value, interval, n) per column)."""

    scores: list[str]
    rows: list[tuple[str, str, list[tuple[str, str, str] | None]]]


def auc_chart(demos: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Chart of the AUC with which scores separate labelled documents; None without any.

    Args: demos, records; their `auc_intervals` {score: {control: {value, low, high, num_real, num_fake}}}, or
      {score: {value, low, high}} of one control; else their `auc` {score: AUC or {control: AUC}}.
    """
    found = _entries(demos)
    if not found:
        return None
    names = list(dict.fromkeys(one.score for one in found))
    bars_of: dict[str, list[Bar]] = {}
    for one in found:
        bar = Bar(one.score, one.value, one.low, one.high, names.index(one.score) if one.control else 0)
        bars_of.setdefault(one.control or one.score, []).append(bar)
    rows = list(bars_of.items())
    chart = bars(rows, key="auc", title="AUC of each score", x_label="AUC", domain=(0.0, 1.0), reference=0.5)
    several = any(len(block) > 1 for _, block in rows)
    return Markup("{}{}").format(legend(names, line=False), chart) if several else chart


def auc_table(demos: Sequence[Mapping[str, Any]]) -> AucTable | None:
    """The same in numbers, with intervals and numbers of documents; None where the records have no intervals.

    Args: demos, as of `auc_chart`; their `kinds` {control: how it is made} tells of the controls.
    """
    found = [one for one in _entries(demos) if one.control and one.low is not None and one.high is not None]
    if not found:
        return None
    about = {
        str(k): v for demo in demos for k, v in _mapping(demo.get("kinds")).items() if isinstance(v, str)
    }
    scores = list(dict.fromkeys(one.score for one in found))
    cells: dict[str, list[tuple[str, str, str] | None]] = {}
    for one in found:
        row = cells.setdefault(one.control, [None] * len(scores))
        interval = f"{one.low:.2f} to {one.high:.2f}"
        sizes = " + ".join(f"{size:,}" for size in one.num if size is not None)
        row[scores.index(one.score)] = (f"{one.value:.2f}", interval, sizes)
    rows = [(clipped(name, 60), clipped(about.get(name, ""), 120), row) for name, row in cells.items()]
    return AucTable([clipped(name, 60) for name in scores], rows)


def _entries(demos: Sequence[Mapping[str, Any]]) -> list[Entry]:
    return [one for demo in demos for one in (_with_intervals(demo) or _plain(demo))]


def _with_intervals(demo: Mapping[str, Any]) -> list[Entry]:
    found = []
    for name, one in _mapping(demo.get("auc_intervals")).items():
        for control, cell in ({"": one} if "value" in _mapping(one) else _mapping(one)).items():
            cell = _mapping(cell)
            value, low, high = (as_number(cell.get(key)) for key in ("value", "low", "high"))
            if value is not None:
                found.append(Entry(str(control), str(name), value, low, high, _sizes(cell)))
    return found


def _plain(demo: Mapping[str, Any]) -> list[Entry]:
    found = []
    for name, one in _mapping(demo.get("auc")).items():
        for control, value in (one if isinstance(one, Mapping) else {"": one}).items():
            auc = as_number(value)
            if auc is not None:
                found.append(Entry(str(control), str(name), auc, None, None, (None, None)))
    return found


def _sizes(cell: Mapping[str, Any]) -> tuple[int | None, int | None]:
    real, fake = (as_number(cell.get(name)) for name in ("num_real", "num_fake"))
    return None if real is None else int(real), None if fake is None else int(fake)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
