"""Tasks of lm-evaluation-harness ("lm-eval", an optional package) on a model that is already loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from longlode.core.errors import BackendError, ConfigError, InputError
from longlode.core.outputs import claim_folder
from longlode.core.records import write_json, write_record
from longlode.models.fingerprint import model_fingerprint

RESULTS_NAME = "lm_eval.json"
_KEPT = ("results", "versions", "n-shot", "n-samples", "higher_is_better")


def run_harness(
    model: Any,
    tokenizer: Any,
    *,
    tasks: Sequence[str],
    out: str | Path,
    include_path: str | Path | None = None,
    max_length: int = 2048,
    limit: int | None = None,
    seed: int = 0,
    name: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Run tasks of lm-eval, unchanged.

    Args:
      model, tokenizer: a Hugging Face causal LM and its tokenizer.
      tasks: names of tasks, groups or tags, as `lm_eval --tasks` takes them.
      out: folder for lm_eval.json (everything that lm-eval reports, less the samples) and record.json.
      include_path: folder with YAML tasks of your own.
      max_length: tokens of context; longer texts lose their beginning, as everywhere in lm-eval.
      limit: examples per task; None for all.   seed: of few-shot examples and sampling.
      name: of the model in the record.   overwrite: replace results of other options that `out` holds.
    Returns: the record's fields; `summary` has rows {task, metric, filter, value, stderr, n}.
    Raises: BackendError without lm-eval; ConfigError on tasks it does not know; InputError without include_path.
    """
    simple_evaluate, HFLM = _import_harness()
    include_path = None if include_path is None else Path(include_path)
    if include_path is not None and not include_path.is_dir():
        raise InputError(f"--include-path {include_path} is no folder; expected one with YAML tasks.")
    asked = {
        "model": name or type(model).__name__,
        "model_fingerprint": model_fingerprint(model),
        "tasks": list(tasks),
        "settings": {"max_length": max_length, "limit": limit, "seed": seed},
    }
    folder = claim_folder(out, "lm_eval", identity=asked, overwrite=overwrite)
    manager = _task_manager(list(tasks), include_path)
    wrapped = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        backend="causal",
        max_length=max_length,
        device=str(model.device),
        batch_size=1,
    )
    names = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
    seeds = dict.fromkeys(names, seed)
    with torch.inference_mode():
        found: Any = simple_evaluate(
            model=wrapped, tasks=list(tasks), task_manager=manager, limit=limit, log_samples=False, **seeds
        )
    fields = asked | {"summary": _rows(found["results"], found.get("n-samples", {}))}
    write_json(folder / RESULTS_NAME, {key: found[key] for key in _KEPT if key in found})
    write_record(folder, "lm_eval", **fields)
    return fields


def _import_harness() -> tuple[Any, Any]:
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise BackendError(f"lm-eval cannot be imported ({error}). Install it: pip install lm-eval") from None
    return simple_evaluate, HFLM


def _task_manager(tasks: list[str], include_path: Path | None) -> Any:
    """The tasks of `include_path` if it has all of them, else those and lm-eval's own (whose index takes seconds)."""
    from lm_eval.tasks import TaskManager

    if include_path is not None:
        own = TaskManager(include_path=str(include_path), include_defaults=False)
        if set(tasks) <= set(own.all_tasks):
            return own
    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    unknown = [task for task in tasks if not manager.match_tasks([task])]
    if unknown or not tasks:
        raise ConfigError(
            f"lm-eval has no task {', '.join(unknown) or '(none was named)'}; `lm_eval ls tasks` lists them, and "
            "--include-path adds a folder of your own."
        )
    return manager


def _rows(results: dict[str, dict[str, Any]], num_samples: dict[str, dict[str, int]]) -> list[dict[str, Any]]:
    """lm-eval's "metric,filter" columns as rows."""
    rows = []
    for task, values in results.items():
        for key, value in values.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            stderr = values.get(f"{metric}_stderr,{filtered}")
            rows.append(
                {
                    "task": task,
                    "metric": metric,
                    "filter": filtered,
                    "value": float(value),
                    "stderr": float(stderr) if isinstance(stderr, int | float) else None,
                    "n": num_samples.get(task, {}).get("effective"),
                }
            )
    return rows
