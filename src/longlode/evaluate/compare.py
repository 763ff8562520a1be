"""Which of two evaluated models is better, example by example.

Both answered the same questions, so the difference is taken on each before it is averaged: what makes an
example hard for both cancels, and a difference shows that two separate intervals would hide.
"""

from pathlib import Path
from typing import Any

from longlode.core.errors import ConfigError
from longlode.core.records import read_jsonl, read_record
from longlode.evaluate.run import EXAMPLES_NAME, metric_columns, position_curve, sampling
from longlode.evaluate.statistics import bootstrap_mean

_KEY = ("task", "length", "example", "bucket_start")


def compare(eval_dir_a: Path, eval_dir_b: Path) -> dict[str, Any]:
    """Paired differences, b minus a, with 95 % bootstrap intervals.

    Args: eval_dir_a, eval_dir_b: folders that `evaluate` wrote from the same examples.
    Returns: {"a": name, "b": name, "rows": [{task, length, metric, a, b, difference, low, high, n, better,
      favours}], "loss_by_position": [{length, bucket_start, bucket_stop, difference (nats), low, high, n}]};
      `favours` is "a" or "b" where the interval leaves 0 out and the metric has a good side, else "".
    Raises: InputError when a folder is no evaluation; ConfigError when the examples are not the same.
    """
    record_a, record_b = (
        read_record(Path(eval_dir_a), "evaluation"),
        read_record(Path(eval_dir_b), "evaluation"),
    )
    if record_a["examples_fingerprint"] != record_b["examples_fingerprint"]:
        raise ConfigError(
            f"{eval_dir_a} and {eval_dir_b} hold answers to different examples, which cannot be paired. "
            "Evaluate both models with one tokenizer and the same tasks, lengths, seed, number of examples "
            "and texts."
        )
    rows_a, rows_b = (
        {tuple(row.get(column) for column in _KEY): row for row in read_jsonl(Path(folder) / EXAMPLES_NAME)}
        for folder in (eval_dir_a, eval_dir_b)
    )
    pairs = []
    for key, row_a in rows_a.items():
        row_b = rows_b[key]
        columns = {name: value for name, value in row_a.items() if isinstance(value, float)}
        pairs.append({**row_a, "pair": {name: (value, row_b[name]) for name, value in columns.items()}})
    curve = [
        {**pair, "difference": pair["pair"]["nats"][1] - pair["pair"]["nats"][0]}
        for pair in pairs
        if "nats" in pair
    ]
    return {
        "a": record_a["model"],
        "b": record_b["model"],
        "rows": _differences(pairs),
        "loss_by_position": position_curve(curve, "difference"),
    }


def _differences(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for task, length, metric, part in metric_columns(pairs):
        how = sampling(task, part)
        sides = [row["pair"][metric.name] for row in part]
        difference, low, high = bootstrap_mean([b - a for a, b in sides], **how)
        mean_a, _, _ = bootstrap_mean([a for a, _ in sides], **how)
        mean_b, _, _ = bootstrap_mean([b for _, b in sides], **how)
        rows.append(
            {
                "task": task,
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
