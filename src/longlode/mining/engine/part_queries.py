"""SQL queries of score parts: the only place where DuckDB reads Parquet."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

MEMORY = "1GB"
"""Memory that a query may take before it moves tables to the disk."""


def _base(folder: Path) -> duckdb.DuckDBPyConnection:
    """Open a database in a temporary folder, which keeps what does not fit into memory, compressed."""
    spilled = str(folder / "spilled")
    return duckdb.connect(
        str(folder / "query.duckdb"),
        config={"memory_limit": MEMORY, "temp_directory": spilled, "preserve_insertion_order": "false"},
    )


@contextmanager
def query_parts(paths: Sequence[Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open DuckDB with a view `parts`: all rows of the files, in no particular order.

    Columns are those of the files and nothing else, by name (null where a file lacks one), and `filename` (the path
    as given) and `file_row_number`. Names of folders are not read as columns: by default DuckDB would
    read `runs/score=3/parts` as a column `score` that replaces the file's own.

    Args: paths, at least one.
    """
    with tempfile.TemporaryDirectory(prefix="longlode-query-") as folder, _base(Path(folder)) as base:
        found = base.read_parquet(
            [str(path) for path in paths],
            hive_partitioning=False,
            union_by_name=True,
            filename=True,
            file_row_number=True,
        )
        found.create_view("parts")
        yield base
