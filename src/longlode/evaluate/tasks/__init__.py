"""tasks: one file a task; TASKS names them.

May import: core, and each other's base files. Start reading: `base.py` (the interface), then `passkey.py`.
A new task is a file with a class that answers `base.Task`, and its line here.
"""

from longlode.evaluate.tasks.base import MAIN, Example, Metric, Scores, SpanScore, Task, Tokens
from longlode.evaluate.tasks.loss_by_position import LossByPosition
from longlode.evaluate.tasks.passkey import Passkey
from longlode.evaluate.tasks.recall import Recall
from longlode.evaluate.tasks.repeated_list import RepeatedList

TASKS: dict[str, type[Task]] = {task.name: task for task in (LossByPosition, Passkey, RepeatedList, Recall)}

__all__ = ["MAIN", "TASKS", "Example", "Metric", "Scores", "SpanScore", "Task", "Tokens"]
