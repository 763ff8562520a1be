"""Documents of web archives (WARC, WET), through fastwarc: extra `[warc]`.

A row is a record that holds a page or a text: `conversion` (the extracted text of a WET file), `resource` and
`response`. Others (`request`, `metadata`, `warcinfo`, `revisit`) hold none and are not counted. Text is not extracted
from HTML: such a page is a skipped row.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from longlode.core.errors import BackendError, ConfigError
from longlode.corpus.charsets import UTF8, check_encoding, decode, fault
from longlode.corpus.document import FAILED, SKIPPED, TOO_SHORT, Document, Unreadable
from longlode.corpus.records import Place, ReadOptions
from longlode.corpus.spans import Span
from longlode.corpus.streams import MAX_RATIO, RATIO_FLOOR_BYTES, ByteStream, TornStreamError
from longlode.corpus.tables import TableDamageError, first_line

_MAX_HEADER_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20
_TEXT_TYPES = ("text/plain", "text/markdown", "application/x-tex", "")
_FIELDS = {"url": "warc-target-uri", "date": "warc-date", "languages": "warc-identified-content-language"}
_ADVICE = "extract its text first (WET files hold extracted text)"

# Where this process stopped reading an archive, so that its next unit goes on there: (path, size) -> cursor.
_parked: dict[tuple[str, str], "_Cursor"] = {}


def index_warc(path: str, *, max_rows: int, max_bytes: int) -> Iterator[Span]:
    """Cut the rows of an archive into spans, by one pass over it.

    Raises: BackendError without fastwarc; OSError if the file cannot be opened; TableDamageError if the system cannot
      read it to its end.
    """
    with _Cursor(path) as cursor:
        start = offset = 0
        for record in cursor:
            if isinstance(record, TornStreamError) and record.transient:
                raise TableDamageError(f"cannot be read: {record}", transient=True)
            if cursor.row - start >= max_rows or cursor.position - offset >= max_bytes:
                yield Span(start, cursor.row, offset, cursor.position - offset)
                start, offset = cursor.row, cursor.position
        if cursor.row > start:
            yield Span(start, cursor.row, offset, cursor.position - offset)


def read_warc_rows(
    path: str, name: str, source: str, start: int, stop: int | None, options: ReadOptions
) -> Iterator[Document | Unreadable]:
    """Yield rows start <= row < stop (None: to the end). The place of damage is a failed row, the last of its file.

    Raises: as `index_warc`.
    """
    parked = _parked.pop((path, name), None)
    _parked.clear()
    cursor = parked if parked is not None and parked.row <= start else _Cursor(path)
    cursor.limit = options.max_text_bytes
    with cursor:
        while cursor.row < start and next(cursor, None) is not None:
            pass
        while stop is None or cursor.row < stop:
            row = cursor.row
            record = next(cursor, None)
            if record is None:
                return
            if isinstance(record, TornStreamError):
                if record.transient:
                    raise TableDamageError(f"cannot be read: {record}", transient=True)
                yield Place(name, row, source, 0).unreadable(FAILED, str(record))
                return
            yield _document(record, Place(name, row, source, record.num_bytes), options)
        _parked[path, name] = cursor


@dataclass(frozen=True)
class _Record:
    """A record of an archive. content: its bytes, None if there are more than the limit."""

    headers: dict[str, str]
    is_http: bool
    content: bytes | None
    num_bytes: int


class _Cursor:
    """The rows of an archive in order.

    Every pass reads records in the same way, so that damage ends it at the same row. row: the next one; position:
    decompressed bytes read so far; limit: most bytes of a record that are kept.
    """

    def __init__(self, path: str, limit: int = 0) -> None:
        fastwarc = _fastwarc()
        self.row, self.limit = 0, limit
        self._stream = _Bytes(ByteStream(path, "gzip" if path.lower().endswith(".gz") else ""))
        kinds = fastwarc.WarcRecordType
        self._records: Any = fastwarc.ArchiveIterator(
            self._stream,
            record_types=kinds.conversion | kinds.response | kinds.resource,
            max_header_len=_MAX_HEADER_BYTES,
            parse_http=False,
            stream_detect=False,
            fsspec_args=False,
        )

    def __enter__(self) -> "_Cursor":
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.inner.close()  # the next read opens it again where it stopped

    @property
    def position(self) -> int:
        return self._stream.position

    def __iter__(self) -> "_Cursor":
        return self

    def __next__(self) -> _Record | TornStreamError:
        """Return the next record, or, once, the damage that ends the archive. Raises: OSError before the first byte."""
        if self._records is None:
            raise StopIteration
        record: _Record | TornStreamError
        try:
            found = next(self._records)
            record = self._read(found)
            if record.num_bytes < found.content_length:
                record = self._stream.torn or TornStreamError(
                    f"the record is cut short: {record.num_bytes:,} of {found.content_length:,} bytes"
                )
        except StopIteration:
            if self._stream.torn is None:
                self._records = None
                raise
            record = self._stream.torn
        except Exception as error:  # fastwarc's, of several classes
            if self._stream.position == 0 and self._stream.torn is None:
                raise
            near = f"near byte {self._stream.position:,}"
            record = self._stream.torn or TornStreamError(f"not a WARC record {near}: {first_line(error)}")
        if isinstance(record, TornStreamError):
            self._records = None
        self.row += 1
        return record

    def _read(self, record: Any) -> _Record:
        pieces: list[bytes] = []
        size = 0
        while piece := record.reader.read(_PIECE_BYTES):
            size += len(piece)
            if size <= self.limit:
                pieces.append(piece)
            else:
                pieces.clear()
        content = b"".join(pieces) if size <= self.limit else None
        return _Record(dict(record.headers.items()), bool(record.is_http), content, size)


class _Bytes(io.RawIOBase):
    """A `ByteStream` as a file of Python. torn: the damage that it ended with.

    It raises nothing, as fastwarc does not expect errors of a stream; it seeks forwards, as fastwarc skips bytes so.
    """

    def __init__(self, inner: ByteStream) -> None:
        super().__init__()
        self.inner, self.position = inner, 0
        self.torn: TornStreamError | None = None
        self._waiting = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._waiting:
            try:
                self._waiting = memoryview(b"" if self.torn else self.inner.read())
            except TornStreamError as error:
                self.torn = error
        piece = self._waiting if size < 0 else self._waiting[:size]
        self._waiting = self._waiting[len(piece) :]
        self.position += len(piece)
        return bytes(piece)

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        goal = offset + (self.position if whence == io.SEEK_CUR else 0)
        if whence == io.SEEK_END or goal < self.position:
            raise io.UnsupportedOperation("only forwards")
        while self.position < goal and self.read(goal - self.position):
            pass
        return self.position


def _fastwarc() -> Any:
    try:
        from fastwarc import warc
    except ImportError:
        raise BackendError(
            "Web archives (.warc, .wet) are read by fastwarc, which is not installed; pip install 'longlode[warc]'."
        ) from None
    return warc


def _document(record: _Record, place: Place, options: ReadOptions) -> Document | Unreadable:
    """Turn a record into a Document, or an Unreadable with the reason."""
    headers = {name.lower(): value for name, value in record.headers.items()}
    name = headers.get("warc-record-id", "").strip("<> ") or f"{place.file}#{place.row}"
    if record.content is None:
        reason = f"larger than {options.max_text_bytes:,} bytes (max_text_bytes)"
        return place.unreadable(FAILED, reason, id=name)
    charset, data = UTF8, record.content
    try:
        kind = headers.get("content-type", "")
        if record.is_http:
            kind, charset, data = _answer(record.content, options)
        kind = kind.split(";", 1)[0].strip().lower()
        if kind not in _TEXT_TYPES:
            return place.unreadable(SKIPPED, f"the page is {kind}, not text; {_ADVICE}", id=name)
        encoding = check_encoding(charset) if charset else options.encoding
    except ConfigError:
        return place.unreadable(FAILED, f"its encoding {charset!r} is unknown", id=name)
    except Exception as error:  # fastwarc's, of a damaged answer
        return place.unreadable(FAILED, f"the record cannot be read: {first_line(error)}", id=name)
    text = decode(data, encoding, options.errors)
    if text is None:
        return place.unreadable(FAILED, fault(data, encoding), id=name)
    if not text:
        return place.unreadable(TOO_SHORT, "the text is empty", id=name)
    about = {key: value for key, field in _FIELDS.items() if (value := headers.get(field))}
    return Document(name, text, place.source, place.file, place.row, about)


def _answer(content: bytes, options: ReadOptions) -> tuple[str, str, bytes]:
    """Return the media type, character set and body, decoded from its transfer, of an HTTP answer.

    Raises: what fastwarc raises; ValueError for a body that expands too far.
    """
    warc = _fastwarc()
    record = warc.WarcRecord()
    record.init_headers(warc.WarcRecordType.response)
    record.set_bytes_content(content)
    record.is_http = True
    record.parse_http(auto_decode="all", max_header_len=_MAX_HEADER_BYTES)
    kind = record.http_headers.get("Content-Type") or ""
    limit = min(options.max_text_bytes, max(RATIO_FLOOR_BYTES, MAX_RATIO * len(content)))
    data = bytearray()
    while piece := record.reader.read(min(_PIECE_BYTES, limit + 1 - len(data))):
        data += piece
        if len(data) > limit:
            raise ValueError(f"{len(content):,} bytes expand to more than {limit:,}")
    return kind, record.http_charset or "", bytes(data)
