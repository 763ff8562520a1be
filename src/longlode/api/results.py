"""Output folders as objects: the record, and the rows as a pyarrow table."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlode.core.errors import BackendError, InputError
from longlode.core.kinds import kind_name
from longlode.core.outputs import full_path
from longlode.core.records import read_jsonl, read_record

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Result:
    """Output of a command.

    path: the folder, or the file of a selection.   kind: as in its record.   record: all of its fields.
    """

    path: Path
    kind: str
    record: dict[str, Any]

    def table(self) -> "pa.Table":
        """The rows: documents with their scores, examples of an evaluation, steps of a run, documents of shards, ...

        Raises: InputError for a kind that has no rows.
        """
        if self.kind not in _TABLES:
            raise InputError(f"{self.path} holds {kind_name(self.kind)}, which has no table of rows.")
        return _TABLES[self.kind](self.path, self.record)

    def to_pandas(self) -> Any:
        """`table()` as a pandas DataFrame. Raises: BackendError without pandas."""
        try:
            import pandas  # noqa: F401 - what pyarrow needs
        except ImportError:
            raise BackendError(
                "pandas is not installed: pip install pandas. Or use .table(), which needs none."
            ) from None
        return self.table().to_pandas()


def read_result(path: str | os.PathLike[str]) -> Result:
    """Open the output of a command: a folder, or the file of a selection.

    Raises: InputError when longlode did not write it.
    """
    where = full_path(path)
    selection = None
    if where.is_file():
        from longlode.mining.selection_files import read_selection

        selection = read_selection(where)
    record = read_record(where) if selection is None else selection
    return Result(where, str(record.get("kind")), record)


def _scores(path: Path, record: dict[str, Any]) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    # partitioning=None: a folder called `name=value` would add a column or replace one.
    parts = [
        pq.read_table(path / "parts" / entry["part"], partitioning=None) for entry in record.get("parts", [])
    ]
    return pa.concat_tables(parts, promote_options="default") if parts else pa.table({})


def _selection(path: Path, record: dict[str, Any]) -> "pa.Table":
    import pyarrow as pa

    from longlode.corpus import Document, read

    rows = [
        {"id": one.id, "source": one.source, "text": one.text, **one.metadata}
        for one in read(str(path))
        if isinstance(one, Document)
    ]
    return pa.Table.from_pylist(rows)


def _shards(path: Path, record: dict[str, Any]) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [pq.read_table(path / entry["documents"], partitioning=None) for entry in record["files"]]
    return pa.concat_tables(tables, promote_options="default")


def _json_lines(name: str) -> Callable[[Path, dict[str, Any]], "pa.Table"]:
    def read(path: Path, record: dict[str, Any]) -> "pa.Table":
        return _of_rows(read_jsonl(path / name))

    return read


def _examples(path: Path, record: dict[str, Any]) -> "pa.Table":
    import pyarrow.parquet as pq

    return pq.read_table(path / "examples.parquet", partitioning=None)


def _field(name: str) -> Callable[[Path, dict[str, Any]], "pa.Table"]:
    return lambda path, record: _of_rows(record[name])


def _of_rows(rows: list[dict[str, Any]]) -> "pa.Table":
    """Table with every column that any row has."""
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [row.get(name) for row in rows] for name in names})


_TABLES: dict[str, Callable[[Path, dict[str, Any]], "pa.Table"]] = {
    "scores": _scores,
    "selection": _selection,
    "shards": _shards,
    "run": _json_lines("metrics.jsonl"),
    "evaluation": _examples,
    "lm_eval": _field("summary"),
    "comparison": _field("rows"),
    "bench": _field("rows"),
}
