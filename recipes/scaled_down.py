"""The long-context recipes at the size of a small machine: the same stages with every length divided, of a small model.

Lengths of rows, bands of tokens in mixtures and `min_context` are divided by one number, so that what a stage reads of
a corpus of short documents is what it would read of one of long documents.
"""

import re
from pathlib import Path
from typing import Any

from longlode.train import Recipe

FOLDER = Path(__file__).parent
LONG_RECIPES = ("long_continue", "effective_long", "progressive", "mined_long")
_TOKEN_BAND = re.compile(r"(num_tokens|extras\.dependency_tokens):(\d*)\.\.(\d*)")


def scaled_down(
    name: str,
    shards: str,
    *,
    divide: int,
    tokens_per_step: int,
    steps: int,
    start: str | None = None,
    teacher: str | None = None,
    model: dict[str, Any] | None = None,
    lr: float | None = None,
) -> Recipe:
    """Read a long recipe with its lengths divided by `divide`.

    Args:
      name: one of `LONG_RECIPES`, or "linearise". shards: the folder to read. tokens_per_step: of every stage, at least
        a row. A tenth of the documents is held out.
      steps: of the run; stages keep their shares, at least one step each.
      start: the model to continue; model: or the [model] section of a new one. teacher: of stages that distil. lr: of
        every stage.
    """
    tree = Recipe.load(FOLDER / f"{name}.toml").resolved()
    tree["data"] |= {"shards": shards, "micro_batch_size": None, "heldout_fraction": 0.1}
    tree["run"] |= {
        "start": start,
        "dtype": "float32",
        "checkpoint_seconds": None,
        "eval_every": None,
        "threads": 1,
    }
    tree["run"]["device"] = "cpu"
    if model is not None:
        tree["model"] = model
    stages = tree["stages"]
    total = sum(stage["tokens"] for stage in stages)
    for stage in stages:
        stage["steps"] = max(1, round(steps * stage.pop("tokens") / total))
        stage["warmup_steps"] = min(5, stage["steps"] // 4)
        stage.pop("micro_batch_size", None)
        goal = stage.get("objective_options", {})
        if "min_context" in goal:
            goal["min_context"] = max(1, goal["min_context"] // divide)
        if "teacher" in goal:
            goal["teacher"] = teacher
    for table in (tree["data"], *stages):
        if "length" in table:
            table["length"] //= divide
            table["batch_size"] = max(1, tokens_per_step // table["length"])
        if isinstance(mix := table.get("mix"), str):
            table["mix"] = _TOKEN_BAND.sub(lambda found: _divided(found, divide), mix)
        if lr is not None and "lr" in table:
            table["lr"] = lr
    if lr is not None:
        tree["optim"]["lr"] = lr
    return Recipe.parse(tree)


def _divided(band: re.Match[str], divide: int) -> str:
    low, high = (str(int(edge) // divide) if edge else "" for edge in band.groups()[1:])
    return f"{band[1]}:{low}..{high}"
