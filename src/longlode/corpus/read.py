"""Read a corpus: every input row gives a Document or an Unreadable, in order, in bounded memory."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from longlode.core.errors import InputError
from longlode.corpus import stores
from longlode.corpus.arrow import read_arrow_rows
from longlode.corpus.charsets import UTF8, UTF8_MARK, decode, fault, keeps_lines
from longlode.corpus.document import FAILED, SKIPPED, TOO_SHORT, Document, Unreadable
from longlode.corpus.formats import ARROW, LINES, PARQUET, WARC
from longlode.corpus.inputs import InputFile, Inputs, find_files
from longlode.corpus.lines import HeldBytes, LineReader, LongLine, TornEnd
from longlode.corpus.parquet import read_rows
from longlode.corpus.records import Place, ReadOptions, parse_line
from longlode.corpus.streams import ByteStream, TornStreamError
from longlode.corpus.tables import TableDamageError
from longlode.corpus.units import NO_RECORDS, NO_ROWS, Unit, UnitFile
from longlode.corpus.warc import read_warc_rows

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

# Where this process stopped reading a compressed file, so that its next unit continues there instead of
# decompressing the file from its start again. At most one entry, no open file: (path, time, size) -> reader.
_parked: dict[tuple[str, int, int], LineReader] = {}


def read(
    inputs: Inputs,
    *,
    text_field: str = "text",
    errors: str = "strict",
    max_line_bytes: int = ReadOptions.max_line_bytes,
    max_text_bytes: int = ReadOptions.max_text_bytes,
    encoding: str = UTF8,
) -> Iterator[Document | Unreadable]:
    """Read all rows of the inputs, one at a time; no file is hashed or counted first.

    Yields the same rows in the same order as reading the units of `plan` one after the other.

    Args:
      inputs: files, folders, globs, URLs (`find_files`).
      text_field: the field or column that holds the text; "text,content" is the first of them that a record has.
      errors: "strict" (bytes that are not of the encoding make the row "failed") or "replace" (each becomes U+FFFD).
      max_line_bytes: a longer line of a records file is "failed"; it is skipped without being held in memory.
      max_text_bytes: a larger whole-text file is "failed".
      encoding: of whole-text files and JSON lines.
    Raises: ConfigError for an unknown encoding; InputError, before the first row, for an input that is missing or holds
      nothing to read.
    """
    options = ReadOptions(text_field, errors, max_line_bytes, max_text_bytes, encoding)
    files = find_files(inputs)
    return (row for file in files for row in _read_file(file, options))


def read_unit(
    unit: Unit,
    *,
    text_field: str = "text",
    errors: str = "strict",
    max_line_bytes: int = ReadOptions.max_line_bytes,
    max_text_bytes: int = ReadOptions.max_text_bytes,
    encoding: str = UTF8,
    json_text: bool = False,
    with_metadata: bool = True,
) -> Iterator[Document | Unreadable]:
    """Read one unit: a Document or an Unreadable for each of its rows, in order. Blank lines give nothing.

    A file that is missing, cannot be read just now or has changed since it was planned gives one "failed" row that is
    `transient`, after the rows read before the change was noticed. The rows of a unit are the planned ones if none of
    them is transient. Arguments as for `read`;
    json_text: a text field may hold a list or an object, as chats do; its text is JSON. with_metadata: False reads
    the text, the id and the source only, of Parquet just these columns; `Document.metadata` is empty.
    """
    options = ReadOptions(
        text_field, errors, max_line_bytes, max_text_bytes, encoding, json_text, with_metadata
    )
    return (row for file in unit.files for row in _read_unit_file(unit, file, options))


def _read_unit_file(unit: Unit, file: UnitFile, options: ReadOptions) -> Iterator[Document | Unreadable]:
    if file.status:
        yield _file_row(file, file.status, file.reason)
    elif unit.data is not None:
        yield from _read_lines(LineReader(HeldBytes(unit.data), row=unit.start), file, unit.stop, options)
    elif (change := _change(unit, file)) is not None:
        yield _changed_row(file, change)
    elif unit.kind == LINES:
        yield from _read_lines_unit(unit, file, options)
    elif unit.kind in _TABLES:
        before = stores.modified(file.path)
        yield from _guarded_table(unit.kind, file, unit.start, unit.stop, options)
        if stores.modified(file.path) != before:
            yield _changed_row(file, _CHANGED)
    else:
        yield _read_text(file, options)


def _read_file(file: InputFile, options: ReadOptions) -> Iterator[Document | Unreadable]:
    plain = UnitFile(
        file.path,
        file.name,
        file.compression,
        file.num_bytes,
        source=file.source,
        status=file.status,
        reason=file.reason,
    )
    if file.status:
        yield _file_row(plain, file.status, file.reason)
    elif file.kind in _TABLES:
        yield from _guarded_table(file.kind, plain, 0, None, options)
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
        yield _unread_row(file, error)
        return
    finally:
        reader.close()
    if num_rows == 0:
        yield _file_row(file, SKIPPED, NO_RECORDS)


def _read_lines_unit(unit: Unit, file: UnitFile, options: ReadOptions) -> Iterator[Document | Unreadable]:
    key = (file.path, file.modified, file.num_bytes)
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
        reader.start_sum()
        for row in _read_lines(reader, file, unit.stop, options):
            yield row
            if isinstance(row, Unreadable) and row.transient:
                return
        if unit.end > unit.stop:
            reader.skip_to(unit.end)  # a limit ends the unit early; its content is judged as a whole
        if unit.digest and reader.digest() != unit.digest:
            yield _changed_row(file, _CHANGED)
        elif file.compression:
            _parked[key] = reader
    except OSError as error:
        yield _unread_row(file, error)
    finally:
        reader.close()


def _read_lines(
    reader: LineReader, file: UnitFile, stop: int | None, options: ReadOptions
) -> Iterator[Document | Unreadable]:
    source = file.source
    if not keeps_lines(options.encoding):
        yield _file_row(
            file, FAILED, f"lines of JSON cannot be separated in {options.encoding}; write them in UTF-8"
        )
        return
    for row, line in reader.lines(stop, options.max_line_bytes):
        if isinstance(line, TornEnd):
            torn = Place(file.name, row, source, 0).unreadable(FAILED, line.reason)
            yield replace(torn, transient=line.transient)
        elif isinstance(line, LongLine):
            reason = f"line longer than {options.max_line_bytes:,} bytes (max_line_bytes): {line.num_bytes:,}"
            yield Place(file.name, row, source, line.num_bytes).unreadable(FAILED, reason)
        else:
            if row == 0:
                line = line.removeprefix(UTF8_MARK)
            if line.strip():
                yield parse_line(line, Place(file.name, row, source, len(line)), options)


_TABLES = {PARQUET: read_rows, ARROW: read_arrow_rows, WARC: read_warc_rows}


def _guarded_table(
    kind: str, file: UnitFile, start: int, stop: int | None, options: ReadOptions
) -> Iterator[Document | Unreadable]:
    num_rows = 0
    try:
        for row in _TABLES[kind](file.path, file.name, file.source, start, stop, options):
            num_rows += 1
            yield row
    except TableDamageError as error:
        yield _file_row(file, FAILED, str(error), transient=error.transient)
        return
    except OSError as error:
        yield _unread_row(file, error)
        return
    if num_rows == 0:
        yield _file_row(file, SKIPPED, NO_ROWS)


def _read_text(file: UnitFile, options: ReadOptions) -> Document | Unreadable:
    """Read a whole file as one document."""
    try:
        data, wrong, content = _read_bytes(file, options.max_text_bytes)
    except OSError as error:
        return _unread_row(file, error)
    except TornStreamError as error:  # the system could not read on
        return _changed_row(file, str(error))
    if content != file.content:
        return _changed_row(file, _CHANGED)
    if wrong:
        return _file_row(file, FAILED, wrong)
    if options.encoding == UTF8 and data.startswith(_UTF16_MARKS):
        return _file_row(file, FAILED, "UTF-16 by its byte order mark, expected UTF-8")
    if keeps_lines(options.encoding) and (where := data.find(0)) >= 0:
        return _file_row(file, SKIPPED, f"binary, not text: NUL at byte {where}")
    if options.encoding == UTF8 and data.startswith(UTF8_MARK):
        del data[: len(UTF8_MARK)]
    text = decode(data, options.encoding, options.errors)
    if text is None:
        return _file_row(file, FAILED, fault(data, options.encoding))
    if not text:
        return _file_row(file, TOO_SHORT, "the file is empty")
    return Document(file.name, text, file.source, file.name, 0)


def _read_bytes(file: UnitFile, limit: int) -> tuple[bytearray, str, str]:
    """Return the file's decompressed bytes; their fault, or ""; and the expected `UnitFile.content`.

    Raises: OSError if the file cannot be opened, UnreadStreamError if the system cannot read on.
    """
    data, too_large = bytearray(), f"larger than {limit:,} bytes (max_text_bytes)"
    if not file.compression and file.num_bytes > limit:
        return data, too_large, file.content
    # The content of a remote file is its version tag; that of an unplanned file is unknown.
    hasher = hashlib.sha256() if file.content and not stores.is_url(file.path) else None
    wrong = ""
    with ByteStream(file.path, file.compression, hasher=hasher) as stream:
        try:
            while not wrong and (chunk := stream.read()):
                data += chunk
                wrong = too_large if len(data) > limit else ""
        except TornStreamError as error:
            if error.transient:
                raise
            wrong = str(error)
        if hasher is not None:
            stream.drain()
    return data, wrong, file.content if hasher is None else hasher.hexdigest()


_CHANGED = "the file has changed since it was planned"


def _change(unit: Unit, file: UnitFile) -> str | None:
    """Return the reason why a file is not as planned, as far as that is known before reading it, or None."""
    try:
        now = stores.describe(file.path)
    except InputError as error:
        return str(error)
    if now is None:
        return "the file has gone since it was planned"
    if unit.kind == LINES:
        return None  # these are checked by the bytes that are read
    if now.num_bytes != file.num_bytes:
        return f"{_CHANGED}, from {file.num_bytes:,} to {now.num_bytes:,} bytes"
    if not stores.is_url(file.path):
        # Whole texts are checked by the bytes that are read as well.
        has_changed = (
            unit.kind in _TABLES and file.modified >= 0 and stores.modified(file.path) != file.modified
        )
        return _CHANGED if has_changed else None
    try:
        return None if stores.remote_version(file.path) == file.content else _CHANGED
    except OSError as error:
        return f"the file cannot be read: {stores.error_text(error)}"


def _file_row(file: UnitFile, status: str, reason: str, *, transient: bool = False) -> Unreadable:
    size = max(file.num_bytes, 0)
    return Unreadable(file.name, file.source, file.name, 0, status, reason, size, transient)


def _unread_row(file: UnitFile, error: OSError) -> Unreadable:
    # Missing permissions are lasting, unless the file could be read when it was planned: then it has changed.
    lasts = isinstance(error, PermissionError) and not file.content
    return _file_row(file, FAILED, f"cannot be read: {stores.error_text(error)}", transient=not lasts)


def _changed_row(file: UnitFile, reason: str) -> Unreadable:
    return _file_row(file, FAILED, reason, transient=True)
