"""Rows of Parquet files, a few at a time."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from longlode.corpus import stores
from longlode.corpus.document import FAILED, Document, Unreadable
from longlode.corpus.lines import Span
from longlode.corpus.records import Place, ReadOptions, make_document

_BATCH_ROWS = 64
_DAMAGE = (pa.ArrowException, OSError)


class ParquetDamageError(Exception):
    """The file is not Parquet, or its footer cannot be read."""


def open_parquet(path: str) -> pq.ParquetFile:
    """Open a Parquet file. Raises ParquetDamageError, or OSError if the file cannot be opened at all."""
    source: Any = stores.open_bytes(path) if stores.is_url(path) else path
    if source is path:
        stores.open_bytes(path).close()  # so that a missing or forbidden file is not called damaged
    try:
        return pq.ParquetFile(source)
    except _DAMAGE as error:
        raise ParquetDamageError(f"not a Parquet file: {_first_line(error)}") from None


def index_parquet(path: str, *, max_rows: int, max_bytes: int) -> list[Span]:
    """Cut a Parquet file's rows into spans from its footer alone; sizes are its row groups' averages.

    Raises: as `open_parquet`.
    """
    with open_parquet(path) as file:
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    spans: list[Span] = []
    row = start = 0
    span_bytes = 0.0
    for num_rows, num_bytes in sizes:
        row_bytes = max(num_bytes / num_rows, 1.0) if num_rows else 1.0
        left = num_rows
        while left:
            room = int((max_bytes - span_bytes) / row_bytes) + 1
            take = min(left, max_rows - (row - start), room)
            row, left, span_bytes = row + take, left - take, span_bytes + take * row_bytes
            if row - start >= max_rows or span_bytes >= max_bytes:
                spans.append(Span(start, row, 0, int(span_bytes)))
                start, span_bytes = row, 0.0
    if row > start:
        spans.append(Span(start, row, 0, int(span_bytes)))
    return spans


def read_rows(
    path: str, name: str, source: str, start: int, stop: int | None, options: ReadOptions
) -> Iterator[Document | Unreadable]:
    """Yield rows start <= row < stop (None: to the end), one result each, damaged pages or not.

    Raises: as `open_parquet`.
    """
    with open_parquet(path) as file:
        first = 0
        for index in range(file.metadata.num_row_groups):
            last = first + file.metadata.row_group(index).num_rows
            row, high = max(first, start), last if stop is None else min(last, stop)
            try:
                for batch_start, batch in _batches(file, index, first):
                    if batch_start >= high:
                        break
                    batch_stop = min(high, batch_start + batch.num_rows)
                    for row in range(row, batch_stop):  # noqa: B020 - `row` is the place to go on from
                        yield _read_row(batch, row - batch_start, Place(name, row, source, 0), options)
                    row = max(row, batch_stop)
            except _DAMAGE as error:
                reason = f"damaged row group {index}: {_first_line(error)}"
                for lost in range(row, high):
                    yield Place(name, lost, source, 0).unreadable(FAILED, reason)
            first = last


def _batches(file: pq.ParquetFile, group: int, first: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group]):
        yield first, batch
        first += batch.num_rows


def _read_row(batch: pa.RecordBatch, index: int, place: Place, options: ReadOptions) -> Document | Unreadable:
    record: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            record[name] = _plain_value(column[index], name == options.text_field, options)
        except UnicodeDecodeError as error:
            return place.unreadable(FAILED, f"field {name!r} is not UTF-8 at byte {error.start}")
    return make_document(record, place, options)


def _plain_value(scalar: Any, is_text: bool, options: ReadOptions) -> Any:
    """A cell as a Python value. Parquet promises UTF-8 and does not check it, so strings are decoded here."""
    if isinstance(scalar, pa.DictionaryScalar):
        scalar = scalar.value
    if isinstance(scalar, pa.BinaryScalar) and (is_text or _is_text(scalar.type)):
        buffer = scalar.as_buffer()
        return None if buffer is None else buffer.to_pybytes().decode("utf-8", options.errors)
    return scalar.as_py()


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
