"""Training section: loss over tokens of every run, and the end of each run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from longlode.report.charts import Series, legend, lines
from longlode.report.read import Found
from longlode.report.text import as_number

_MAX_POINTS = 400
_WINDOW_SHARE = 0.03  # of a run's rows are averaged for the smooth line


@dataclass(frozen=True)
class RunRow:
    """One run in the table; loss is the mean over its last rows, in nats per token."""

    name: str
    status: str
    num_parameters: int | None
    steps: int | None
    tokens: int | None
    loss: float | None
    eval_loss: float | None
    tokens_per_second: float | None
    seconds: float | None


@dataclass(frozen=True)
class TrainingView:
    """Data for the template on all runs. cut: the loss above which the chart shows nothing, or None."""

    rows: list[RunRow]
    chart: Markup | None
    legend: Markup | None
    eval_chart: Markup | None
    eval_legend: Markup | None
    cut: float | None

    @property
    def has_held_out(self) -> bool:
        """Tell if any run measured held-out text."""
        return any(row.eval_loss is not None for row in self.rows)


def training_view(runs: Sequence[tuple[Found, Sequence[Mapping[str, Any]]]]) -> TrainingView:
    """Lay out runs with their metrics rows (step, tokens, loss, ...)."""
    curves = [(found, *_columns(rows, "loss")) for found, rows in runs]
    drawn = [_series(found.name, x, y) for found, x, y in curves if len(x) > 1]
    held_out = [(found, *_columns(rows, "eval_loss")) for found, rows in runs]
    eval_drawn = [
        Series(found.name, x.tolist(), y.tolist(), points=True) for found, x, y in held_out if len(x) > 1
    ]
    cut = _cut(drawn)
    return TrainingView(
        rows=[_run_row(found, rows) for found, rows in runs],
        chart=lines(
            drawn,
            key="train",
            title="Training loss",
            x_label="tokens",
            y_label="loss, nats per token",
            y_max=cut,
        )
        if drawn
        else None,
        legend=legend([series.name for series in drawn]) if drawn else None,
        eval_chart=lines(
            eval_drawn,
            key="train-eval",
            title="Held-out loss",
            x_label="tokens",
            y_label="held-out loss, nats per token",
        )
        if eval_drawn
        else None,
        eval_legend=legend([series.name for series in eval_drawn]) if eval_drawn else None,
        cut=cut,
    )


def _columns(rows: Sequence[Mapping[str, Any]], column: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(as_number(row.get("tokens")), as_number(row.get(column))) for row in rows]
    kept = [(x, y) for x, y in pairs if x is not None and y is not None]
    values = np.asarray(kept, dtype=np.float64).reshape(-1, 2)
    return values[:, 0], values[:, 1]


def _series(name: str, x: np.ndarray, y: np.ndarray) -> Series:
    """The running mean of a loss curve and the curve itself, both thinned to what a chart can show."""
    window = max(1, round(len(y) * _WINDOW_SHARE))
    total = np.cumsum(np.concatenate([[0.0], y]))
    half = window // 2
    start = np.maximum(np.arange(len(y)) - half, 0)
    stop = np.minimum(np.arange(len(y)) + half + 1, len(y))
    smooth = (total[stop] - total[start]) / (stop - start)
    kept = np.unique(np.linspace(0, len(y) - 1, min(len(y), _MAX_POINTS)).round().astype(int))
    return Series(name, x[kept].tolist(), smooth[kept].tolist(), raw=y[kept].tolist())


def _cut(drawn: Sequence[Series]) -> float | None:
    """Loss above which the chart is cut: the initial fall from ln(vocabulary) would flatten the rest of the curve."""
    if not drawn:
        return None
    highest = max(max(series.y) for series in drawn)
    later = max(value for series in drawn for value in series.y[len(series.y) // 20 :])
    lowest = min(min(series.y) for series in drawn)
    limit = later + 0.15 * (later - lowest)
    return limit if limit < highest else None


def _count(value: Any) -> int | None:
    found = as_number(value)
    return None if found is None else round(found)


def _run_row(found: Found, rows: Sequence[Mapping[str, Any]]) -> RunRow:
    _, loss = _columns(rows, "loss")
    _, held_out = _columns(rows, "eval_loss")
    _, speed = _columns(rows, "tokens_per_second")
    last = max(1, round(len(loss) * _WINDOW_SHARE))
    record = found.record
    return RunRow(
        name=found.name,
        status=str(record.get("status") or ""),
        num_parameters=_count(record.get("num_parameters")),
        steps=_count(record.get("steps")),
        tokens=_count(record.get("tokens")),
        loss=float(loss[-last:].mean()) if len(loss) else as_number(record.get("loss")),
        eval_loss=float(held_out[-1]) if len(held_out) else as_number(record.get("eval_loss")),
        tokens_per_second=float(np.median(speed)) if len(speed) else None,
        seconds=as_number(record.get("seconds")),
    )
