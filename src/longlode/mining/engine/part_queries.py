"""SQL queries of score parts: the only place where DuckDB reads Parquet."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb


@contextmanager
def query_parts(paths: Sequence[Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open DuckDB with a view `parts`: all rows of the files, in no particular order.

    Columns are those of the files and nothing else, by name (null where a file lacks one), and `filename` (the path
    as given) and `file_row_number`. Names of folders are not read as columns: by default DuckDB would
    read `runs/score=3/parts` as a column `score` that replaces the file's own.

    Args: paths, at least one.
    """
    with duckdb.connect() as base:
        found = base.read_parquet(
            [str(path) for path in paths],
            hive_partitioning=False,
            union_by_name=True,
            filename=True,
            file_row_number=True,
        )
        found.create_view("parts")
        yield base
