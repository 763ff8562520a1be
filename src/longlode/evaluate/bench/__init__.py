"""bench: small models trained from scratch on tasks of symbols, one table per task, to compare mixers.

May import: core, mixers, models and evaluate's tasks; torch. Start reading: `row_tasks.py` (the data), then `run.py`.
"""

from longlode.evaluate.bench.row_tasks import Rows, RowTask
from longlode.evaluate.bench.run import (
    BenchSettings,
    bench,
    summary,
    train_model,
    trained_model,
    with_best_rate,
)
from longlode.evaluate.bench.tasks import ROW_TASKS

__all__ = [
    "ROW_TASKS",
    "BenchSettings",
    "RowTask",
    "Rows",
    "bench",
    "summary",
    "train_model",
    "trained_model",
    "with_best_rate",
]
