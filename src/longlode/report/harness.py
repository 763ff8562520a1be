"""Table of lm-evaluation-harness: its tasks' results as in the records, models side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from longlode.report.read import Found
from longlode.report.results import model_names, rows_in
from longlode.report.text import as_number, clipped

_MAX_ROWS = 400


@dataclass(frozen=True)
class HarnessRow:
    """A metric of a task for one model. filter: lm-eval's processing of the answer, if any."""

    model: str
    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    num_examples: int | None


@dataclass(frozen=True)
class HarnessView:
    """Data for the template on all records of kind lm_eval. settings: one line per model."""

    rows: list[HarnessRow]
    settings: list[str]
    num_left_out: int


def harness_view(found: Sequence[Found]) -> HarnessView | None:
    """Lay out records of kind lm_eval, task by task; None if there are none."""
    if not found:
        return None
    names = model_names(found)
    rows = [row for name, one in zip(names, found, strict=True) for row in _rows(name, one)]
    places = list(dict.fromkeys((row.task, row.metric, row.filter) for row in rows))
    tasks = list(dict.fromkeys(task for task, _, _ in places))
    ordered = sorted(
        rows, key=lambda row: (tasks.index(row.task), places.index((row.task, row.metric, row.filter)))
    )
    return HarnessView(
        rows=ordered[:_MAX_ROWS],
        settings=[_settings(name, one) for name, one in zip(names, found, strict=True)],
        num_left_out=max(0, len(ordered) - _MAX_ROWS),
    )


def _rows(name: str, found: Found) -> list[HarnessRow]:
    rows = []
    for row in rows_in(found.record.get("summary"), "value"):
        examples = as_number(row.get("n"))
        filtered = clipped(row.get("filter") or "", 40)
        rows.append(
            HarnessRow(
                model=name,
                task=clipped(row.get("task") or "", 80),
                metric=clipped(row.get("metric") or "", 60),
                filter="" if filtered == "none" else filtered,
                value=float(row["value"]),
                stderr=as_number(row.get("stderr")),
                num_examples=None if examples is None else int(examples),
            )
        )
    return rows


def _settings(name: str, found: Found) -> str:
    """Limits of the figures: the context, and the number of examples per task."""
    given = found.record.get("settings")
    settings = given if isinstance(given, dict) else {}
    length, limit = as_number(settings.get("max_length")), as_number(settings.get("limit"))
    parts = [] if length is None else [f"a context of {length:,.0f} tokens"]
    parts.append("all examples" if limit is None else f"the first {limit:,.0f} examples of each task")
    return f"{clipped(name, 60)}: {', '.join(parts)}"
