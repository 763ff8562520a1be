"""Spans of rows that a records file is cut into, found while its lines are counted."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from longlode.corpus.charsets import UTF8_MARK
from longlode.corpus.streams import ByteStream, Hasher, TornStreamError

DIGEST_DIGITS = 32
"""Hex digits of a span's digest: 128 bits of SHA-256."""
FIRST_UNIT_BYTES = 512 << 10
_GROWTH = 16
_NEWLINE = 10
_MOST_HELD = 4
"""Spans longer than this many times their most bytes are not kept: a single line may be as large as memory."""
_NEVER = 1 << 62


def unit_bytes(place: int, most: int) -> int:
    """Size of the unit that begins at byte `place`: small where a file begins, then a sixteenth of what lies before.

    So a small corpus has enough units for several workers, a large one has few, and what is appended changes none.
    """
    return min(most, max(FIRST_UNIT_BYTES, place // _GROWTH))


@dataclass(frozen=True)
class Span:
    """Rows start <= row < stop of a file, `num_bytes` long from (decompressed) byte `offset`.

    digest: the first 32 hex digits of the SHA-256 of those bytes; "" if it is not known. data: the bytes, if kept.
    """

    start: int
    stop: int
    offset: int
    num_bytes: int
    digest: str = ""
    data: bytes | None = field(default=None, compare=False, repr=False)


@dataclass
class LineScan:
    """One pass over the lines of a file, which cuts them into spans as it reads on.

    A span closes at `max_rows` rows or `unit_bytes` bytes, at most `max_bytes`, and with the line that reaches a
    multiple of `piece_bytes`.
    So the spans are a function of the bytes before their ends: what is appended to a file changes the last one only.

    row, offset: where the pass begins, a line and its (decompressed) byte; compressed files are decompressed from
      their start. is_blank: True while every line read was blank. keeps_data: spans have their bytes, except very long
      ones and a damaged end.
    """

    path: str
    compression: str
    max_rows: int
    max_bytes: int
    piece_bytes: int
    row: int = 0
    offset: int = 0
    is_blank: bool = True
    keeps_data: bool = False
    _hasher: Hasher = field(default_factory=hashlib.sha256)
    _row: int = 0  # after the last line seen
    _end: int = 0
    _held: list[bytes] = field(default_factory=list)
    _held_bytes: int = 0

    def spans(self) -> Iterator[Span]:
        """Yield the spans from the beginning of this pass to the end of the file.

        A damaged file has one row more than its complete lines, as `LineReader` yields it.
        Raises: OSError if the file cannot be opened, or the system cannot read it to its end.
        """
        self._row, self._end = self.row, self.offset
        position, torn = self.offset, False
        with ByteStream(self.path, self.compression, offset=0 if self.compression else self.offset) as stream:
            try:
                for chunk in _from(stream, self.offset if self.compression else 0):
                    head = chunk if position else chunk.removeprefix(UTF8_MARK)
                    self.is_blank = self.is_blank and not head.strip()
                    yield from self._cut(chunk, position)
                    position += len(chunk)
            except TornStreamError as error:
                if error.transient:
                    raise OSError(str(error)) from None
                torn = True
        if position > self._end or torn:
            self._row, self._end = self._row + 1, position
            self.is_blank = self.is_blank and not torn
            self._held_bytes += _NEVER if torn else 0  # a reader has to see where it breaks off
        if self._row > self.row:
            yield self._close()

    def _cut(self, chunk: bytes, position: int) -> Iterator[Span]:
        """Yield the spans that end in the next bytes of the file, which begin at `position`."""
        ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == _NEWLINE) + (position + 1)
        first, summed = 0, 0
        while first < len(ends):
            stop = self.offset + unit_bytes(self.offset, self.max_bytes)
            stop = min(stop, (self.offset // self.piece_bytes + 1) * self.piece_bytes)
            by_rows = first + self.max_rows - (self._row - self.row) - 1
            last = min(by_rows, int(np.searchsorted(ends[first:], stop)) + first)
            is_open = last >= len(ends)
            last = min(last, len(ends) - 1)
            self._row, self._end = self._row + last + 1 - first, int(ends[last])
            if is_open:
                break
            self._add(chunk, summed, self._end - position)
            summed, first = self._end - position, last + 1
            yield self._close()
        self._add(chunk, summed, len(chunk))

    def _add(self, chunk: bytes, start: int, stop: int) -> None:
        """Add bytes to the open span."""
        piece = memoryview(chunk)[start:stop]
        self._hasher.update(piece)
        self._held_bytes += len(piece)
        if self.keeps_data and self._held_bytes <= _MOST_HELD * self.max_bytes:
            self._held.append(bytes(piece))
        else:
            self._held.clear()

    def _close(self) -> Span:
        digest, self._hasher = self._hasher.hexdigest()[:DIGEST_DIGITS], hashlib.sha256()
        is_held = self.keeps_data and self._held_bytes == self._end - self.offset
        data = b"".join(self._held) if is_held and self._held else None
        self._held, self._held_bytes = [], 0
        span = Span(self.row, self._row, self.offset, self._end - self.offset, digest, data)
        self.row, self.offset = self._row, self._end
        return span


def _from(stream: ByteStream, offset: int) -> Iterator[bytes]:
    """Yield the bytes of a stream after the first `offset` ones."""
    while chunk := stream.read():
        if offset < len(chunk):
            yield chunk[offset:]
        offset = max(0, offset - len(chunk))
