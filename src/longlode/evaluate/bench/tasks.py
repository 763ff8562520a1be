"""The tasks of `longlode bench`, by name."""

from longlode.evaluate.bench import row_tasks
from longlode.evaluate.bench.mad_rows import Compression, Memorization
from longlode.evaluate.bench.row_tasks import RowTask

ROW_TASKS: dict[str, type[RowTask]] = {
    kind.name: kind
    for kind in (
        row_tasks.RecallSmall,
        row_tasks.RecallMiddle,
        row_tasks.RecallLarge,
        row_tasks.Overwrite,
        row_tasks.JointRecallRows,
        row_tasks.ParityRows,
        row_tasks.ArithmeticRows,
        row_tasks.LanguageRows,
        row_tasks.ListOpsRows,
        Compression,
        Memorization,
    )
}
"""Name -> task."""
