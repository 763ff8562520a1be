"""Lines of a file as bytes: at most one line of bounded length in memory, and a row for each fault."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from longlode.corpus.spans import DIGEST_DIGITS
from longlode.corpus.streams import ByteStream, TornStreamError

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


class HeldBytes:
    """A stream of bytes that are in memory."""

    def __init__(self, data: bytes) -> None:
        """Give `data`, and then the end."""
        self._data = data

    def read(self) -> bytes:
        """Return all bytes at the first call, b"" afterwards."""
        data, self._data = self._data, b""
        return data

    def close(self) -> None:
        """Do nothing."""


class LineReader:
    """Lines of a file, in order, from any row on.

    Its position is always between two lines; `close` keeps it, so that reading can continue later.
    """

    def __init__(self, stream: ByteStream | HeldBytes, *, row: int = 0) -> None:
        """Start at the stream's first byte, which begins row `row`."""
        self.row = row
        self._stream = stream
        self._buffer = b""
        self._start = 0  # of the current line in the buffer
        self._ended = False
        self._hasher, self._summed = hashlib.sha256(), 0  # of the bytes since `start_sum`, up to this place

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def start_sum(self) -> None:
        """Begin a hash at the next line."""
        self._hasher, self._summed = hashlib.sha256(), self._start

    def digest(self) -> str:
        """Return the hash of the bytes since `start_sum`, up to the next line; see `Span.digest`."""
        self._sum_to(self._start)
        return self._hasher.hexdigest()[:DIGEST_DIGITS]

    def _sum_to(self, place: int) -> None:
        self._hasher.update(memoryview(self._buffer)[self._summed : place])
        self._summed = place

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
        self._sum_to(len(self._buffer))
        self._buffer, self._start, self._summed = chunk, 0, 0
        self._ended = not self._buffer
