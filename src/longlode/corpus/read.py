"""Read a corpus: every input row gives a Document or an Unreadable, in order, in bounded memory."""

from collections.abc import Iterator

from longlode.core.errors import InputError
from longlode.corpus import stores
from longlode.corpus.document import FAILED, SKIPPED, TOO_SHORT, Document, Unreadable
from longlode.corpus.formats import LINES, PARQUET, stem
from longlode.corpus.inputs import InputFile, Inputs, find_files
from longlode.corpus.lines import UTF8_MARK, LineReader, LongLine, TornEnd
from longlode.corpus.parquet import ParquetDamageError, read_rows
from longlode.corpus.records import Place, ReadOptions, decode_utf8, parse_line, utf8_fault
from longlode.corpus.streams import ByteStream, TornStreamError
from longlode.corpus.units import NO_RECORDS, NO_ROWS, Unit, UnitFile

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

# Where this process stopped reading a compressed file, so that its next unit goes on from there instead of
# decompressing the file from its start again. At most one place, no open file: (path, content) -> reader.
_parked: dict[tuple[str, str], LineReader] = {}


def read(
    inputs: Inputs,
    *,
    text_field: str = "text",
    errors: str = "strict",
    max_line_bytes: int = ReadOptions.max_line_bytes,
    max_text_bytes: int = ReadOptions.max_text_bytes,
) -> Iterator[Document | Unreadable]:
    """Read everything behind the inputs, a row at a time; no file is hashed or counted first.

    Gives the same rows in the same order as reading the units of `plan` one after the other.

    Args:
      inputs: files, folders, globs, URLs (`find_files`).
      text_field: the field or column that holds the text.
      errors: "strict" (bytes that are not UTF-8 make the row "failed") or "replace" (each becomes U+FFFD).
      max_line_bytes: a longer line of a records file is "failed"; it is read through, never held.
      max_text_bytes: a larger whole-text file is "failed".
    Raises: InputError, before the first row, for an input that is missing or holds nothing to read.
    """
    options = ReadOptions(text_field, errors, max_line_bytes, max_text_bytes)
    files = find_files(inputs)
    return (row for file in files for row in _read_file(file, options))


def read_unit(
    unit: Unit,
    *,
    text_field: str = "text",
    errors: str = "strict",
    max_line_bytes: int = ReadOptions.max_line_bytes,
    max_text_bytes: int = ReadOptions.max_text_bytes,
) -> Iterator[Document | Unreadable]:
    """Read one unit: a Document or an Unreadable for each of its rows, in order. Blank lines give nothing.

    A file that has gone or changed since it was planned gives one "failed" row. Arguments as for `read`.
    """
    options = ReadOptions(text_field, errors, max_line_bytes, max_text_bytes)
    return (row for file in unit.files for row in _read_unit_file(unit, file, options))


def _read_unit_file(unit: Unit, file: UnitFile, options: ReadOptions) -> Iterator[Document | Unreadable]:
    fault = (file.status, file.reason) if file.status else _change(file)
    if fault is not None:
        yield _file_row(file, *fault)
    elif unit.kind == LINES:
        yield from _read_lines_unit(unit, file, options)
    elif unit.kind == PARQUET:
        yield from _guarded_parquet(file, unit.start, unit.stop, options)
    else:
        yield _read_text(file, options)


def _read_file(file: InputFile, options: ReadOptions) -> Iterator[Document | Unreadable]:
    plain = UnitFile(file.path, file.name, file.compression, file.num_bytes, "", file.status, file.reason)
    if file.status:
        yield _file_row(plain, file.status, file.reason)
    elif file.kind == PARQUET:
        yield from _guarded_parquet(plain, 0, None, options)
    elif file.kind == LINES:
        yield from _read_whole_lines(plain, options)
    else:
        yield _read_text(plain, options)


def _read_whole_lines(file: UnitFile, options: ReadOptions) -> Iterator[Document | Unreadable]:
    reader = LineReader(ByteStream(file.path, file.compression))
    num_rows = 0
    try:
        for row in _read_lines(reader, file, None, options):
            num_rows += 1
            yield row
    except OSError as error:
        yield _file_row(file, FAILED, f"cannot be read: {stores.error_text(error)}")
        return
    finally:
        reader.close()
    if num_rows == 0:
        yield _file_row(file, SKIPPED, NO_RECORDS)


def _read_lines_unit(unit: Unit, file: UnitFile, options: ReadOptions) -> Iterator[Document | Unreadable]:
    key = (file.path, file.content)
    parked = _parked.pop(key, None)
    _parked.clear()
    if parked is not None and parked.row <= unit.start:
        reader = parked
    elif file.compression:
        reader = LineReader(ByteStream(file.path, file.compression))
    else:
        reader = LineReader(ByteStream(file.path, offset=unit.offset), row=unit.start)
    try:
        reader.skip_to(unit.start)
        yield from _read_lines(reader, file, unit.stop, options)
        if file.compression:
            _parked[key] = reader
    except OSError as error:
        yield _file_row(file, FAILED, f"cannot be read: {stores.error_text(error)}")
    finally:
        reader.close()


def _read_lines(
    reader: LineReader, file: UnitFile, stop: int | None, options: ReadOptions
) -> Iterator[Document | Unreadable]:
    source = stem(file.name)
    for row, line in reader.lines(stop, options.max_line_bytes):
        if isinstance(line, TornEnd):
            yield Place(file.name, row, source, 0).unreadable(FAILED, line.reason)
        elif isinstance(line, LongLine):
            reason = f"line longer than {options.max_line_bytes:,} bytes (max_line_bytes): {line.num_bytes:,}"
            yield Place(file.name, row, source, line.num_bytes).unreadable(FAILED, reason)
        else:
            if row == 0:
                line = line.removeprefix(UTF8_MARK)
            if line.strip():
                yield parse_line(line, Place(file.name, row, source, len(line)), options)


def _guarded_parquet(
    file: UnitFile, start: int, stop: int | None, options: ReadOptions
) -> Iterator[Document | Unreadable]:
    num_rows = 0
    try:
        for row in read_rows(file.path, file.name, stem(file.name), start, stop, options):
            num_rows += 1
            yield row
    except ParquetDamageError as error:
        yield _file_row(file, FAILED, str(error))
        return
    except OSError as error:
        yield _file_row(file, FAILED, f"cannot be read: {stores.error_text(error)}")
        return
    if num_rows == 0:
        yield _file_row(file, SKIPPED, NO_ROWS)


def _read_text(file: UnitFile, options: ReadOptions) -> Document | Unreadable:
    """A whole file as one document."""
    try:
        data = _read_bytes(file, options.max_text_bytes)
    except TornStreamError as error:
        return _file_row(file, FAILED, str(error))
    except OSError as error:
        return _file_row(file, FAILED, f"cannot be read: {stores.error_text(error)}")
    if data is None:
        return _file_row(file, FAILED, f"larger than {options.max_text_bytes:,} bytes (max_text_bytes)")
    if data.startswith(_UTF16_MARKS):
        return _file_row(file, FAILED, "UTF-16 by its byte order mark, expected UTF-8")
    if (where := data.find(0)) >= 0:
        return _file_row(file, SKIPPED, f"binary, not text: NUL at byte {where}")
    data = data.removeprefix(UTF8_MARK)
    text = decode_utf8(data, options.errors)
    if text is None:
        return _file_row(file, FAILED, utf8_fault(data))
    if not text:
        return _file_row(file, TOO_SHORT, "the file is empty")
    return Document(file.name, text, _file_source(file), file.name, 0)


def _read_bytes(file: UnitFile, limit: int) -> bytes | None:
    """The file's decompressed bytes, or None if there are more than `limit`."""
    if not file.compression and file.num_bytes > limit:
        return None
    parts: list[bytes] = []
    size = 0
    with ByteStream(file.path, file.compression) as stream:
        while chunk := stream.read():
            size += len(chunk)
            if size > limit:
                return None
            parts.append(chunk)
    return b"".join(parts)


def _change(file: UnitFile) -> tuple[str, str] | None:
    """Status and reason if the file is not what was planned; its size tells, nothing is read twice."""
    try:
        now = stores.describe(file.path)
    except InputError as error:
        return FAILED, str(error)
    if now is None:
        return FAILED, "the file has gone since it was planned"
    if now.num_bytes != file.num_bytes:
        return (
            FAILED,
            f"the file has changed since it was planned, from {file.num_bytes:,} to {now.num_bytes:,} bytes",
        )
    return None


def _file_source(file: UnitFile) -> str:
    folder = file.name.rpartition("/")[0]
    return folder or stem(file.name)


def _file_row(file: UnitFile, status: str, reason: str) -> Unreadable:
    return Unreadable(file.name, _file_source(file), file.name, 0, status, reason, max(file.num_bytes, 0))
