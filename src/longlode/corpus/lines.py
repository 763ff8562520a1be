"""Lines of a file as bytes: at most one line of bounded length in memory, and a row for each fault."""

import hashlib
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from longlode.corpus.streams import ByteStream, TornStreamError

UTF8_MARK = b"\xef\xbb\xbf"
_NEWLINE = 10
_BLANK_LINES = re.compile(rb"\n+")


@dataclass(frozen=True)
class LongLine:
    """A line above the limit, read through and dropped."""

    num_bytes: int


@dataclass(frozen=True)
class TornEnd:
    """The place where a file cannot be read further; it has the row number of the line that is cut.

    transient: as of `Unreadable`.
    """

    reason: str
    transient: bool = False


@dataclass(frozen=True)
class Span:
    """Rows start <= row < stop of a file, `num_bytes` long from (decompressed) byte `offset`.

    checksum: CRC-32 of those bytes, -1 if it is not known.
    """

    start: int
    stop: int
    offset: int
    num_bytes: int
    checksum: int = -1


@dataclass(frozen=True)
class LineIndex:
    """Results of one pass over a file: SHA-256 of its bytes, its spans, whether any line is not blank."""

    content: str
    spans: list[Span]
    has_text: bool


@dataclass
class SpanCutter:
    """Cutter of rows into spans: each closes at `max_rows` rows or `max_bytes` bytes, whichever comes first.

    Call `feed` with bytes, then `add` with the ends of the rows that end in them.
    """

    max_rows: int
    max_bytes: int
    spans: list[Span] = field(default_factory=list)
    _row: int = 0  # rows seen
    _end: int = 0  # end of the last row seen, bytes
    _start_row: int = 0
    _start_byte: int = 0
    _chunk: bytes = b""  # the bytes fed last
    _chunk_start: int = 0
    _crc: int = 0  # of the open span, up to byte `_summed`
    _summed: int = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file."""
        self._sum_to(self._chunk_start + len(self._chunk))
        self._chunk_start += len(self._chunk)
        self._chunk = chunk

    def _sum_to(self, end: int) -> None:
        """Add the bytes before `end`, which lie in the last chunk, to the open span's checksum."""
        piece = memoryview(self._chunk)[self._summed - self._chunk_start : end - self._chunk_start]
        self._crc, self._summed = zlib.crc32(piece, self._crc), end

    def add(self, ends: np.ndarray) -> None:
        """Add rows by the byte offsets of their ends, int64, ascending."""
        first = 0
        while first < len(ends):
            by_rows = first + self.max_rows - (self._row - self._start_row) - 1
            by_bytes = int(np.searchsorted(ends[first:], self._start_byte + self.max_bytes)) + first
            last = min(by_rows, by_bytes)
            if last >= len(ends):
                self._row += len(ends) - first
                self._end = int(ends[-1])
                return
            self._row += last + 1 - first
            self._end = int(ends[last])
            self.close()
            first = last + 1

    def close(self) -> None:
        """Close the span that is open, if it has rows."""
        if self._row > self._start_row:
            num_bytes = self._end - self._start_byte
            self._sum_to(self._end)
            self.spans.append(Span(self._start_row, self._row, self._start_byte, num_bytes, self._crc))
            self._crc = 0
        self._start_row, self._start_byte = self._row, self._end


def index_lines(path: str, compression: str, *, max_rows: int, max_bytes: int) -> LineIndex:
    """Read a file once: hash it, count its lines and cut them into spans.

    A damaged file has one row more than its complete lines, as `LineReader` yields it.
    Raises: OSError if the file cannot be opened, or the system cannot read it to its end.
    """
    hasher = hashlib.sha256()
    cutter = SpanCutter(max_rows, max_bytes)
    position = last_end = 0
    has_text = torn = False
    with ByteStream(path, compression, hasher=hasher) as stream:
        try:
            while chunk := stream.read():
                cutter.feed(chunk)
                ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == _NEWLINE) + (position + 1)
                if len(ends):
                    cutter.add(ends)
                    last_end = int(ends[-1])
                head = chunk if position else chunk.removeprefix(UTF8_MARK)
                has_text = has_text or bool(head.strip())
                position += len(chunk)
        except TornStreamError as error:
            if error.transient:
                raise OSError(str(error)) from None
            torn = True
            stream.drain()
    if position > last_end or torn:
        cutter.add(np.array([position]))
    cutter.close()
    return LineIndex(hasher.hexdigest(), cutter.spans, has_text or torn)


class LineReader:
    """Lines of a file, in order, from any row on.

    Its position is always between two lines; `close` keeps it, so that reading can continue later.
    """

    def __init__(self, stream: ByteStream, *, row: int = 0) -> None:
        """Start at the stream's first byte, which begins row `row`."""
        self.row = row
        self._stream = stream
        self._buffer = b""
        self._start = 0  # of the current line in the buffer
        self._ended = False
        self._crc, self._summed = (
            0,
            0,
        )  # of the bytes passed since `start_sum`, up to this place in the buffer

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def start_sum(self) -> None:
        """Begin a checksum at the next line."""
        self._crc, self._summed = 0, self._start

    def checksum(self) -> int:
        """Return the CRC-32 of the bytes since `start_sum`, up to the next line."""
        return zlib.crc32(memoryview(self._buffer)[self._summed : self._start], self._crc)

    def skip_to(self, row: int) -> None:
        """Skip to the start of `row`, or to the end or the damage before it. Raises: as `ByteStream.read`."""
        line_is_open = False
        while self.row < row:
            ahead = self._buffer.count(b"\n", self._start)
            wanted = row - self.row
            if ahead >= wanted:
                for _ in range(wanted):
                    self._start = self._buffer.index(b"\n", self._start) + 1
                self.row = row
                return
            line_start = self._buffer.rfind(b"\n") + 1 if ahead else self._start
            line_is_open = len(self._buffer) > line_start or (line_is_open and not ahead)
            self.row += ahead
            try:
                self._fill()
            except TornStreamError:
                self._ended = True
            if self._ended:
                self.row += line_is_open
                return

    def lines(
        self, stop: int | None, max_line_bytes: int
    ) -> Iterator[tuple[int, bytes | LongLine | TornEnd]]:
        """Yield (row, line without its newline) up to row `stop`, or to the end.

        Empty lines are counted, not yielded. A line above `max_line_bytes` is yielded as a LongLine, the place
        where the file is damaged as a last TornEnd.
        """
        while not self._ended and (stop is None or self.row < stop):
            if blank := _BLANK_LINES.match(self._buffer, self._start):  # all at once: there can be millions
                num_blank = len(blank[0]) if stop is None else min(len(blank[0]), stop - self.row)
                self.row, self._start = self.row + num_blank, self._start + num_blank
                continue
            row = self.row
            item = self._next(max_line_bytes)
            if item is None:
                return
            self.row += 1
            yield row, item

    def _next(self, max_line_bytes: int) -> bytes | LongLine | TornEnd | None:
        parts: list[bytes] = []
        size = 0
        while True:
            end = self._buffer.find(b"\n", self._start)
            piece = self._buffer[self._start : end if end >= 0 else None]
            size += len(piece)
            if size <= max_line_bytes:
                parts.append(piece)
            else:
                parts.clear()  # a line too long is read through, never held
            if end >= 0:
                self._start = end + 1
                break
            try:
                self._fill()
            except TornStreamError as error:
                self._ended = True
                self._start = len(self._buffer)
                return TornEnd(str(error), error.transient)
            if self._ended:
                if size == 0:
                    return None
                break
        return LongLine(size) if size > max_line_bytes else b"".join(parts)

    def _fill(self) -> None:
        """Read the next chunk; the rest of the buffer has been used."""
        chunk = self._stream.read()
        self._crc = zlib.crc32(memoryview(self._buffer)[self._summed :], self._crc)
        self._buffer, self._start, self._summed = chunk, 0, 0
        self._ended = not self._buffer
