"""Rows of Arrow files (IPC streams, as `datasets` saves them, and IPC files), one batch at a time."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

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
)

_FILE_MAGIC = b"ARROW1"


def index_arrow(path: str, *, max_rows: int, max_bytes: int) -> list[Span]:
    """Cut an Arrow file's rows into spans; a local file is memory-mapped, so that only its batch headers are read.

    A file damaged after some batches has one row more than those batches, as `read_arrow_rows` yields it.
    Raises: OSError if the file cannot be opened; TableDamageError when not even its schema can be read.
    """
    sizes: list[tuple[int, float]] = []
    with _opened(path) as (batches, _):
        try:
            for batch in batches:
                # Not `nbytes`, which follows the offsets of dictionaries, wherever damaged ones lead.
                sizes.append((batch.num_rows, batch.get_total_buffer_size()))
        except DAMAGE as error:
            if is_transient(error):
                raise
            sizes.append((1, 1))
    return cut_groups(sizes, max_rows=max_rows, max_bytes=max_bytes)


def read_arrow_rows(
    path: str, name: str, source: str, start: int, stop: int | None, options: ReadOptions
) -> Iterator[Document | Unreadable]:
    """Yield rows start <= row < stop (None: to the end), one result each; the last says where a file is damaged.

    Raises: as `index_arrow`; TableDamageError that is transient when the system cannot read the file just now.
    """
    row = 0
    with _opened(path) as (batches, num_bytes):
        try:
            for batch in batches:
                first, last = row, row + batch.num_rows
                check_num_rows(last, num_bytes)
                row, high = max(first, start), last if stop is None else min(last, stop)
                is_sound = row >= high or _is_sound(batch)
                for row in range(row, high):  # noqa: B020 - reading continues at `row`
                    place = Place(name, row, source, 0)
                    fault = "" if is_sound else _fault(batch.slice(row - first, 1))
                    yield (
                        place.unreadable(FAILED, fault)
                        if fault
                        else read_row(batch, row - first, place, options)
                    )
                row = last
                if stop is not None and row >= stop:
                    return
        except (*DAMAGE, TableDamageError) as error:
            if is_transient(error):
                raise TableDamageError(f"cannot be read: {first_line(error)}", transient=True) from None
            if start <= row and (stop is None or row < stop):
                reason = f"damaged Arrow data, not read from here on: {first_line(error)}"
                yield Place(name, row, source, 0).unreadable(FAILED, reason)


@contextmanager
def _opened(path: str) -> Iterator[tuple[Iterator[pa.RecordBatch], int]]:
    """Open a file: an iterator over its batches, and its size in bytes."""
    stores.open_bytes(path).close()  # so that a missing or forbidden file is not called damaged
    if stores.is_url(path):
        source: Any = pa.PythonFile(stores.open_bytes(path), mode="r")
    elif Path(path).stat().st_size == 0:
        source = pa.BufferReader(b"")  # what cannot be mapped
    else:
        source = pa.memory_map(path)
    with closing(source):
        num_bytes = source.size()
        try:
            is_file = source.read(len(_FILE_MAGIC)) == _FILE_MAGIC
            source.seek(0)
            reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
        except DAMAGE as error:
            raise TableDamageError(
                f"not an Arrow file: {first_line(error)}", transient=is_transient(error)
            ) from None
        try:
            reader.schema.names  # noqa: B018 - reading them decodes them
        except UnicodeDecodeError as error:
            raise bad_name(error) from None
        yield _file_batches(reader) if is_file else iter(reader), num_bytes


def _file_batches(reader: Any) -> Iterator[pa.RecordBatch]:
    return (reader.get_batch(number) for number in range(reader.num_record_batches))


def _is_sound(batch: pa.RecordBatch) -> bool:
    """Return True if every cell can be read safely; an Arrow file's own offsets may be damaged."""
    try:
        batch.validate(full=True)
    except pa.ArrowException:
        return False
    return True


def _fault(row: pa.RecordBatch) -> str:
    """Return the reason why a row must not be read, or "": damaged offsets would lead out of the file's buffers."""
    for name, column in zip(row.schema.names, row.columns, strict=True):
        kind = column.type
        if pa.types.is_primitive(kind):
            continue  # no offsets: any bytes are a valid value
        try:
            if pa.types.is_string(kind) or pa.types.is_large_string(kind):
                # As bytes: invalid UTF-8 is reported later, when the cell is decoded.
                plain = pa.binary() if pa.types.is_string(kind) else pa.large_binary()
                column = pa.Array.from_buffers(
                    plain, len(column), column.buffers(), column.null_count, column.offset
                )
            column.validate(full=True)
        except pa.ArrowException as error:
            return f"field {name!r} is damaged: {first_line(error)}"
    return ""
