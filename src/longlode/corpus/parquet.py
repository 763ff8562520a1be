"""Rows of Parquet files, read in small batches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from longlode.corpus import stores
from longlode.corpus.document import FAILED, Document, Unreadable
from longlode.corpus.records import Place, ReadOptions
from longlode.corpus.spans import Span
from longlode.corpus.tables import (
    DAMAGE,
    TableDamageError,
    bad_name,
    check_num_rows,
    cut_groups,
    first_line,
    is_transient,
    read_row,
    used_columns,
)

_BATCH_ROWS = 64


def open_parquet(path: str) -> pq.ParquetFile:
    """Open a Parquet file. Raises TableDamageError, or OSError if the file cannot be opened at all."""
    stream = stores.open_bytes(path)  # first, so that a missing or forbidden file is not reported as damaged
    source: Any = stream if stores.is_url(path) else path
    if source is path:
        num_bytes = Path(path).stat().st_size
        stream.close()
    else:
        num_bytes = stream.seek(0, 2)
        stream.seek(0)
    try:
        file = pq.ParquetFile(source)
    except UnicodeDecodeError as error:
        raise bad_name(error) from None
    except DAMAGE as error:
        raise TableDamageError(
            f"not a Parquet file: {first_line(error)}", transient=is_transient(error)
        ) from None
    try:
        sizes = [file.metadata.row_group(index).num_rows for index in range(file.metadata.num_row_groups)]
        for num_rows in (*sizes, sum(sizes)):
            check_num_rows(num_rows, num_bytes)
    except TableDamageError as error:
        file.close()
        raise TableDamageError(f"not a Parquet file: {error}") from None
    return file


def index_parquet(path: str, *, max_rows: int, max_bytes: int) -> list[Span]:
    """Cut a Parquet file's rows into spans from its footer alone; row sizes are averages of row groups.

    Raises: as `open_parquet`.
    """
    with open_parquet(path) as file:
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    return cut_groups(sizes, max_rows=max_rows, max_bytes=max_bytes)


def read_rows(
    path: str, name: str, source: str, start: int, stop: int | None, options: ReadOptions
) -> Iterator[Document | Unreadable]:
    """Yield rows start <= row < stop (None: to the end), one result each, also for rows in damaged pages.

    Raises: as `open_parquet`; TableDamageError that is transient when the system cannot read the file just now.
    """
    with open_parquet(path) as file:
        columns = _columns(file, options)
        first = 0
        for index in range(file.metadata.num_row_groups):
            last = first + file.metadata.row_group(index).num_rows
            row, high = max(first, start), last if stop is None else min(last, stop)
            if row >= high:
                first = last
                continue
            try:
                for batch_start, batch in _batches(file, index, first, columns):
                    if batch_start >= high:
                        break
                    batch_stop = min(high, batch_start + batch.num_rows)
                    for row in range(row, batch_stop):  # noqa: B020 - reading continues at `row`
                        yield read_row(batch, row - batch_start, Place(name, row, source, 0), options)
                    row = max(row, batch_stop)
            except DAMAGE as error:
                if is_transient(error):
                    raise TableDamageError(f"cannot be read: {first_line(error)}", transient=True) from None
                reason = f"damaged row group {index}: {first_line(error)}"
            else:
                reason = f"damaged row group {index}: it holds fewer rows than it claims"
            for lost in range(row, high):
                yield Place(name, lost, source, 0).unreadable(FAILED, reason)
            first = last


def _columns(file: pq.ParquetFile, options: ReadOptions) -> list[str] | None:
    """Return the names of the columns to read, None for all; a nested or a double column is not one of its name."""
    names = file.schema_arrow.names
    if options.with_metadata or len(set(names)) < len(names):
        return None
    return used_columns(names, options)


def _batches(
    file: pq.ParquetFile, group: int, first: int, columns: list[str] | None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=columns):
        yield first, batch
        first += batch.num_rows
