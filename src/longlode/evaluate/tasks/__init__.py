"""tasks: one file per task; TASKS finds them by name.

May import: core, and each other's base files. Start reading: `base.py` (the interface), then `passkey.py`.
A new task is a file here with a class that answers `base.Task`, or an entry point of the group `longlode.tasks` in
another package.
"""

from longlode.core.plugins import Registry
from longlode.evaluate.tasks.base import (
    MAIN,
    Curve,
    Example,
    Metric,
    Scores,
    SpanScore,
    Task,
    TaskInfo,
    Tokens,
)

TASKS: Registry[Task] = Registry("task", Task, package="longlode.evaluate.tasks", group="longlode.tasks")  # type: ignore[type-abstract]

__all__ = ["MAIN", "TASKS", "Curve", "Example", "Metric", "Scores", "SpanScore", "Task", "TaskInfo", "Tokens"]
