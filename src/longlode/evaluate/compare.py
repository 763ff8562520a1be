"""Paired comparison of two evaluated models, example by example.

Both answered the same questions, so the difference is taken per question before it is averaged: the difficulty that
an example has for both cancels, which shows differences that two separate intervals would hide. Each difference is
tested by flipping signs, and the tests are corrected for their number (Holm).
"""

from pathlib import Path
from typing import Any

from longlode.core.errors import ConfigError
from longlode.core.records import read_record
from longlode.core.rows import read_rows
from longlode.evaluate.run import EXAMPLES_NAME, curves, metric_columns, sampling
from longlode.evaluate.statistics import bootstrap_mean, holm, sign_flip_p
from longlode.evaluate.tasks import TaskInfo

_LEVEL = 0.05


def compare(eval_dir_a: str | Path, eval_dir_b: str | Path) -> dict[str, Any]:
    """Paired differences, b minus a, with 95 % bootstrap intervals and p-values.

    Args: eval_dir_a, eval_dir_b: folders that `evaluate` wrote from the same examples.
    Returns: {"a": name, "b": name, "rows": [{task, length, metric, a, b, difference, low, high, p, p_adjusted, n,
      better, favours}], "sentences": [one per task and length], "curves": {task: [{length, start, stop, mean (of the
      difference), low, high, n}]}, "task_info"}.
      `p_adjusted` is corrected for the number of headline metrics of all tasks and lengths, for other metrics for the
      number of those; both p are None where there is no better direction, or a single group. `favours` is "a" or "b"
      where `p_adjusted` is below .05, else "".
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
    rows = _differences(pairs, infos)
    return {
        "a": record_a["model"],
        "b": record_b["model"],
        "rows": rows,
        "sentences": _sentences(rows, infos, record_a["model"], record_b["model"]),
        "curves": curves(along, infos, "difference"),
        "task_info": record_a["task_info"],
    }


def _key(row: dict[str, Any], infos: dict[str, TaskInfo]) -> tuple[Any, ...]:
    """Identity of the question that a row answers."""
    columns = ("task", "length", "example", *infos[row["task"]].key_columns)
    return tuple(row[column] for column in columns)


def _differences(pairs: list[dict[str, Any]], infos: dict[str, TaskInfo]) -> list[dict[str, Any]]:
    rows = []
    headline = []
    for info, length, metric, part in metric_columns(pairs, infos):
        headline.append(metric.headline)
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
                "p": sign_flip_p([b - a for a, b in sides], **how) if metric.better else None,
                "n": len({row["example"] for row in part}),
                "better": metric.better,
            }
        )
    for family in (True, False):
        _adjust([row for row, shown in zip(rows, headline, strict=True) if shown == family])
    return rows


def _adjust(rows: list[dict[str, Any]]) -> None:
    """Add the p-values corrected for the number of these rows, and which model each favours."""
    tested = [row for row in rows if row["p"] is not None]
    for row in rows:
        row["p_adjusted"] = None
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_adjusted"] = p
    for row in rows:
        row["favours"] = _favours(row)


def _favours(row: dict[str, Any]) -> str:
    if row["p_adjusted"] is None or row["p_adjusted"] >= _LEVEL:
        return ""
    return "b" if (row["difference"] > 0.0) == (row["better"] == "higher") else "a"


def _sentences(rows: list[dict[str, Any]], infos: dict[str, TaskInfo], a: str, b: str) -> list[str]:
    """One sentence per task and length, about its first headline metric that has a better direction."""
    found: dict[tuple[str, int], str] = {}
    for row in rows:
        key = (row["task"], row["length"])
        metrics = {metric.name: metric for metric in infos[row["task"]].averages}
        metric = metrics[row["metric"]]
        if key in found or row["p"] is None or not metric.headline:
            continue
        where = f"{row['task']} at {row['length']:,} tokens"
        values = (
            f"{metric.words or metric.about} {row['b']:.3g} against {row['a']:.3g} {metric.unit}, difference "
            f"{row['difference']:+.3g} (95 % interval {row['low']:+.3g} to {row['high']:+.3g}; adjusted p "
            f"{row['p_adjusted']:.2g}; n = {row['n']})"
        )
        winner = {"a": a, "b": b}.get(row["favours"])
        found[key] = (
            f"{where}: no difference between {b} and {a} is shown: {values}."
            if winner is None
            else f"{where}: {winner} is better: {values}."
        )
    return list(found.values())
