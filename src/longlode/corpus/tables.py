"""Conversion of rows of Arrow tables to documents, shared by Parquet and Arrow files."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from longlode.corpus.document import FAILED, Document, Unreadable
from longlode.corpus.records import Place, ReadOptions, make_document
from longlode.corpus.spans import Span, unit_bytes

DAMAGE = (pa.ArrowException, OSError)
"""Errors that pyarrow raises for bytes that it cannot read."""
MAX_ROWS_PER_BYTE = 64
ROWS_FLOOR = 1 << 20
"""Limits on the rows of a file: even a column of one repeated value takes some bytes per page."""


class TableDamageError(Exception):
    """The file is not of its format, or contradicts itself. transient: reading failed, the bytes may be good."""

    def __init__(self, text: str, *, transient: bool = False) -> None:
        """Make an error. Args: text, the reason."""
        super().__init__(text)
        self.transient = transient


def is_transient(error: BaseException) -> bool:
    """Return True for an error of the system; pyarrow's errors about bad bytes carry no errno."""
    return isinstance(error, OSError) and error.errno is not None


def check_num_rows(num_rows: int, num_bytes: int) -> None:
    """Check that a file of `num_bytes` can hold the rows that it claims. Raises: TableDamageError."""
    most = max(ROWS_FLOOR, MAX_ROWS_PER_BYTE * num_bytes)
    if not 0 <= num_rows <= most:
        raise TableDamageError(
            f"it claims {num_rows:,} rows in {num_bytes:,} bytes; at most {most:,} are believed"
        )


def bad_name(error: UnicodeDecodeError) -> TableDamageError:
    """Make the error for a column name that is not UTF-8, which formats promise and their readers do not check."""
    return TableDamageError(f"the name of a column is not UTF-8 at byte {error.start}")


def cut_groups(sizes: Iterable[tuple[int, float]], *, max_rows: int, max_bytes: int) -> list[Span]:
    """Cut rows into spans of at most `max_rows` rows and about `unit_bytes` bytes, at most `max_bytes`.

    Args: sizes, (rows, bytes) of each group of rows in order; rows of a group are taken as equally long.
    """
    spans: list[Span] = []
    row = start = offset = 0
    span_bytes = 0.0
    for num_rows, num_bytes in sizes:
        row_bytes = max(num_bytes / num_rows, 1.0) if num_rows else 1.0
        left = num_rows
        while left:
            size = unit_bytes(offset, max_bytes)
            room = int((size - span_bytes) / row_bytes) + 1
            take = min(left, max_rows - (row - start), room)
            row, left, span_bytes = row + take, left - take, span_bytes + take * row_bytes
            if row - start >= max_rows or span_bytes >= size:
                spans.append(Span(start, row, offset, int(span_bytes)))
                start, offset, span_bytes = row, offset + int(span_bytes), 0.0
    if row > start:
        spans.append(Span(start, row, offset, int(span_bytes)))
    return spans


def used_columns(names: list[str], options: ReadOptions) -> list[str]:
    """Return the columns that a document without metadata is made of; all where no column has the text."""
    used = {*options.text_fields, "id", "source"}
    has_text = any(name in options.text_fields for name in names)
    return [name for name in names if name in used] if has_text else names


def read_row(batch: pa.RecordBatch, index: int, place: Place, options: ReadOptions) -> Document | Unreadable:
    """Convert one row of a batch. A damaged cell of a column that is wanted fails only its own row."""
    record: dict[str, Any] = {}
    names = batch.schema.names
    wanted = names if options.with_metadata else used_columns(names, options)
    for name, column in zip(names, batch.columns, strict=True):
        if name not in wanted:
            continue
        try:
            record[name] = _plain_value(column[index], name in options.text_fields, options)
        except UnicodeDecodeError as error:
            return place.unreadable(FAILED, f"field {name!r} is not UTF-8 at byte {error.start}")
        except (ValueError, OverflowError, TypeError, NotImplementedError, pa.ArrowException) as error:
            return place.unreadable(FAILED, f"field {name!r} cannot be read: {first_line(error)}")
    return make_document(record, place, options)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _plain_value(scalar: Any, is_text: bool, options: ReadOptions) -> Any:
    """Convert a cell to a Python value. Files promise UTF-8 but no reader checks it, so strings are decoded here."""
    if isinstance(scalar, pa.DictionaryScalar):
        scalar = scalar.value
    if isinstance(scalar, pa.BinaryScalar) and (is_text or _is_text(scalar.type)):
        buffer = scalar.as_buffer()
        return None if buffer is None else buffer.to_pybytes().decode("utf-8", options.errors)
    if pa.types.is_duration(scalar.type):
        return _as_text(scalar)  # `timedelta` ends at microseconds, and JSON has no such type
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError, pa.ArrowException):
        return _parts(scalar, options)


def _parts(scalar: Any, options: ReadOptions) -> Any:
    """Convert a cell that Python cannot hold as a whole.

    Nested ones are converted part by part, times become text (to the nanosecond, or beyond the year 9999).
    """
    if isinstance(scalar, pa.StructScalar):
        return {name: _plain_value(value, False, options) for name, value in scalar.items()}
    if isinstance(scalar, pa.MapScalar):
        pairs = [(pair["key"], pair["value"]) for pair in scalar.values]
        return [(_plain_value(k, False, options), _plain_value(v, False, options)) for k, v in pairs]
    if isinstance(scalar, pa.ListScalar):
        return [_plain_value(value, False, options) for value in scalar.values]
    return _as_text(scalar)


def _as_text(scalar: Any) -> str | None:
    if not scalar.is_valid:
        return None
    if pa.types.is_duration(scalar.type):
        return f"{scalar.cast(pa.int64()).as_py()} {scalar.type.unit}"
    text: str = scalar.cast(pa.string()).as_py()
    return text


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
