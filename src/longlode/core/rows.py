"""Rows of a result as one Parquet file, and back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longlode.core.errors import InputError
from longlode.core.records import atomic_path


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a Parquet file, atomically.

    It has every column that any row has, in the order in which they first come; a row without one has null there.
    A column that holds numbers in some rows and text in others (columns of different tasks may share a name) is
    written as text.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: _column([row.get(name) for row in rows]) for name in names})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows that `write_rows` wrote.

    Raises: InputError when the file is missing or is no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, partitioning=None).to_pylist()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}") from None


def _column(values: list[Any]) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        pass
    try:  # whole numbers in some rows, fractions in others
        return pa.array([None if value is None else float(value) for value in values])
    except (TypeError, ValueError):
        return pa.array([None if value is None else str(value) for value in values])
