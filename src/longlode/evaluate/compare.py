"""Paired comparison of two evaluated models, example by example.

Both answered the same questions, so the difference is taken per question before it is averaged: the difficulty that
an example has for both cancels, which shows differences that two separate intervals would hide.
"""

from pathlib import Path
from typing import Any

from longlode.core.errors import ConfigError
from longlode.core.records import read_record
from longlode.core.rows import read_rows
from longlode.evaluate.run import EXAMPLES_NAME, curves, metric_columns, sampling
from longlode.evaluate.statistics import bootstrap_mean
from longlode.evaluate.tasks import TaskInfo


def compare(eval_dir_a: str | Path, eval_dir_b: str | Path) -> dict[str, Any]:
    """Paired differences, b minus a, with 95 % bootstrap intervals.

    Args: eval_dir_a, eval_dir_b: folders that `evaluate` wrote from the same examples.
    Returns: {"a": name, "b": name, "rows": [{task, length, metric, a, b, difference, low, high, n, better,
      favours}], "curves": {task: [{length, start, stop, mean (of the difference), low, high, n}]}, "task_info"};
      `favours` is "a" or "b" where the interval excludes 0 and the metric has a better direction, else "".
    Raises: InputError when a folder is no evaluation; ConfigError when the examples are not the same.
    """
    record_a, record_b = (read_record(folder, "evaluation") for folder in (eval_dir_a, eval_dir_b))
    if record_a["examples_fingerprint"] != record_b["examples_fingerprint"]:
        raise ConfigError(
            f"{eval_dir_a} and {eval_dir_b} hold answers to different examples, which cannot be paired. "
            "Evaluate both models with one tokenizer and the same tasks, lengths, seed, number of examples "
            "and texts."
        )
    infos = {name: TaskInfo.from_json(fields) for name, fields in record_a["task_info"].items()}
    rows_a, rows_b = (
        {_key(row, infos): row for row in read_rows(Path(folder) / EXAMPLES_NAME)}
        for folder in (eval_dir_a, eval_dir_b)
    )
    pairs = []
    for key, row_a in rows_a.items():
        row_b = rows_b[key]
        names = [metric.name for metric in infos[row_a["task"]].averages]
        pairs.append({**row_a, "pair": {name: (row_a[name], row_b[name]) for name in names}})
    along = []
    for pair in pairs:
        curve = infos[pair["task"]].curve
        if curve is not None:
            a, b = pair["pair"][curve.metric]
            along.append({**pair, "difference": b - a})
    return {
        "a": record_a["model"],
        "b": record_b["model"],
        "rows": _differences(pairs, infos),
        "curves": curves(along, infos, "difference"),
        "task_info": record_a["task_info"],
    }


def _key(row: dict[str, Any], infos: dict[str, TaskInfo]) -> tuple[Any, ...]:
    """Identity of the question that a row answers."""
    columns = ("task", "length", "example", *infos[row["task"]].key_columns)
    return tuple(row[column] for column in columns)


def _differences(pairs: list[dict[str, Any]], infos: dict[str, TaskInfo]) -> list[dict[str, Any]]:
    rows = []
    for info, length, metric, part in metric_columns(pairs, infos):
        how = sampling(info, part)
        sides = [row["pair"][metric.name] for row in part]
        difference, low, high = bootstrap_mean([b - a for a, b in sides], **how)
        mean_a, _, _ = bootstrap_mean([a for a, _ in sides], **how)
        mean_b, _, _ = bootstrap_mean([b for _, b in sides], **how)
        rows.append(
            {
                "task": info.name,
                "length": length,
                "metric": metric.name,
                "a": mean_a,
                "b": mean_b,
                "difference": difference,
                "low": low,
                "high": high,
                "n": len({row["example"] for row in part}),
                "better": metric.better,
                "favours": _favours(metric.better, low, high),
            }
        )
    return rows


def _favours(better: str, low: float | None, high: float | None) -> str:
    if not better or low is None or high is None or low <= 0.0 <= high:
        return ""
    return "b" if (low > 0.0) == (better == "higher") else "a"
