"""Effective length: the longest context at which a model still scores what RULER asks for (arXiv 2404.06654).

RULER averages its tasks at each length, and calls a length effective where the average is above 85.6 %, the score of
Llama-2-7B at 4,096 tokens. Its two tasks on questions of other data sets are not here, and scores here are of answers
read after the right ones before them, so lengths compare between models evaluated here, not with its published ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longlode.core.errors import InputError

RULER_TASKS = (
    "niah_single_1",
    "niah_single_2",
    "niah_single_3",
    "niah_multikey_1",
    "niah_multikey_2",
    "niah_multikey_3",
    "niah_multivalue",
    "niah_multiquery",
    "variable_tracking",
    "common_words",
    "frequent_words",
)
THRESHOLD = 0.856


@dataclass(frozen=True)
class EffectiveLength:
    """Effective length of a model.

    tokens: the longest length whose score is above `threshold`; 0 where none is.
    scores: the mean share of right answers over the tasks, by length in tokens.   tasks: those in the mean.
    """

    tokens: int
    threshold: float
    scores: dict[int, float]
    tasks: tuple[str, ...]


def effective_length(
    summary: Sequence[Mapping[str, Any]],
    *,
    threshold: float = THRESHOLD,
    tasks: Sequence[str] = RULER_TASKS,
) -> EffectiveLength:
    """Effective length from the summary of an evaluation's record.

    Args: threshold, share of right answers that has to be exceeded; tasks, those of the mean, where evaluated.
    Lengths at which one of them has no examples are left out, so that all means are of the same tasks.
    Raises: InputError when the summary has none of the tasks.
    """
    found: dict[int, dict[str, float]] = {}
    for row in summary:
        if row["metric"] == "hard" and row["task"] in tasks:
            found.setdefault(row["length"], {})[row["task"]] = row["mean"]
    if not found:
        raise InputError(
            f"The evaluation has none of the tasks {', '.join(tasks)}; expected one or more. Evaluate some of them."
        )
    present = tuple(task for task in tasks if any(task in means for means in found.values()))
    scores = {
        length: sum(means.values()) / len(means)
        for length, means in sorted(found.items())
        if len(means) == len(present)
    }
    passed = [length for length, score in scores.items() if score > threshold]
    return EffectiveLength(max(passed, default=0), threshold, scores, present)
