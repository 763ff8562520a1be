"""Score parts as SQL sees them: the one place where DuckDB reads Parquet."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb


@contextmanager
def query_parts(paths: Sequence[Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open DuckDB with a view `parts`: all rows of the files, in no promised order.

    Columns are those of the files and nothing else, by name (null where a file lacks one), and `filename` (the path
    as given) and `file_row_number`. Names of folders mean nothing: DuckDB alone would read `runs/score=3/parts` as a
    column `score` that replaces the file's own.

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
