"""Writing of rows as JSON lines or Parquet: the whole file or nothing."""

import base64
import gzip
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from longlode.core.errors import InputError
from longlode.core.nested_json import dumps_nested
from longlode.core.records import atomic_path

_BATCH_ROWS = 1024
_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


def check_output_path(path: Path) -> None:
    """Check the suffix of an output path. Raises: InputError for one that `write_documents` cannot write."""
    if not path.name.endswith(_SUFFIXES):
        raise InputError(f"{path} cannot be written: its suffix must be one of {', '.join(_SUFFIXES)}.")


Row = dict[str, Any]
Refused = Callable[[Row, str], None]
_MAX_PARQUET_DEPTH = 48
"""Deepest nesting of lists and objects in a Parquet column; the Arrow spool files hold 64 levels of types."""


def write_documents(path: str | Path, rows: Iterable[Row], *, refused: Refused | None = None) -> int:
    """Write rows in the format given by the suffix, atomically; return the number written.

    `.jsonl`, `.jsonl.gz`, `.jsonl.zst`: one JSON object per line; dates and decimals become strings, bytes become
    base64, NaN becomes null. `.parquet`: one column for each field seen, null where a row lacks it. The same
    rows give the same bytes. Rows are held a few at a time.

    Args: refused: called with each row that the format cannot hold, and the reason; others are written. None: raise.
    Raises: InputError for another suffix, a folder that cannot be written, or fields that the format cannot hold.
    """
    path = Path(path)
    check_output_path(path)
    try:
        with atomic_path(path) as temporary:
            if path.suffix == ".parquet":
                return _write_parquet(temporary, path, rows, refused)
            with _compressed(temporary, path.suffix) as stream:
                return _write_lines(stream, path, rows, refused)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"{path} cannot be written: {reason}. Make room, or choose another folder."
        ) from None


@contextmanager
def _compressed(path: Path, suffix: str) -> Iterator[BinaryIO]:
    with path.open("wb") as raw:
        if suffix == ".gz":
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as stream:
                yield cast(BinaryIO, stream)
        elif suffix == ".zst":
            with zstandard.ZstdCompressor(level=6).stream_writer(raw, closefd=False) as stream:
                yield cast(BinaryIO, stream)
        else:
            yield raw


def _write_lines(stream: BinaryIO, path: Path, rows: Iterable[Row], refused: Refused | None) -> int:
    num_rows = 0
    for row in rows:
        try:
            line = _json(row)
        except TypeError as error:
            _refuse(row, f"it cannot be written as JSON: {error}", path, refused)
            continue
        stream.write(line + b"\n")
        num_rows += 1
    return num_rows


def _json(row: Row) -> bytes:
    try:
        return orjson.dumps(row, default=_as_text)
    except TypeError:  # nested too deeply for orjson, or a type without JSON form
        return dumps_nested(row, _as_text)


def _refuse(row: Row, reason: str, path: Path, refused: Refused | None) -> None:
    if refused is None:
        raise InputError(f"{path}: row {row.get('id', '')!r}: {reason}.")
    refused(row, reason)


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, timedelta):
        return f"{value // timedelta(microseconds=1)} us"
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form")


def _write_parquet(temporary: Path, path: Path, rows: Iterable[Row], refused: Refused | None) -> int:
    """Write batches to spool files with the columns they have, then merge them under one schema."""
    spool = temporary.with_name(temporary.name + ".spool")
    spool.mkdir()
    try:
        schema: pa.Schema = pa.schema([])
        parts: list[Path] = []
        num_rows = 0
        for batch in _batched(_shallow(rows, path, refused)):
            table = _table(batch, path)
            schema = _merged(schema, table.schema, path)
            parts.append(spool / f"{len(parts)}.arrow")
            with pa.ipc.new_file(parts[-1], table.schema) as sink:
                sink.write_table(table)
            num_rows += len(batch)
        schema = (
            schema if len(schema) else pa.schema([(name, pa.string()) for name in ("id", "source", "text")])
        )
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for part in parts:
                with pa.ipc.open_file(part) as source:
                    writer.write_table(_under(schema, source.read_all()))
        return num_rows
    finally:
        shutil.rmtree(spool, ignore_errors=True)


def _shallow(rows: Iterable[Row], path: Path, refused: Refused | None) -> Iterator[Row]:
    for row in rows:
        if _is_deeper(row, _MAX_PARQUET_DEPTH):
            reason = (
                f"its fields are nested deeper than {_MAX_PARQUET_DEPTH} levels; write .jsonl for such rows"
            )
            _refuse(row, reason, path, refused)
        else:
            yield row


def _is_deeper(value: Any, limit: int) -> bool:
    """Return True if lists and objects are nested more than `limit` levels deep."""
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list | tuple)
        ]
        if not level:
            return False
    return True


def _batched(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _table(rows: list[dict[str, Any]], path: Path) -> pa.Table:
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise _mixed(path, name, error) from None
    return pa.table(columns)


def _merged(schema: pa.Schema, other: pa.Schema, path: Path) -> pa.Schema:
    try:
        return pa.unify_schemas([schema, other], promote_options="permissive")
    except pa.ArrowException as error:
        raise _mixed(path, "", error) from None


def _mixed(path: Path, name: str, error: BaseException) -> InputError:
    where = f"field {name!r}" if name else "a field"
    return InputError(
        f"{path}: {where} holds several kinds of value, as a Parquet column cannot ({error}); write .jsonl."
    )


def _under(schema: pa.Schema, table: pa.Table) -> pa.Table:
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
