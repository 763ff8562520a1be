"""Decompressed bytes in bounded pieces, from files that may be cut short, corrupt or decompression bombs."""

import zlib
from types import TracebackType
from typing import BinaryIO, Protocol

import zstandard

from longlode.core.errors import InputError
from longlode.corpus import stores

CHUNK_BYTES = 256 << 10
"""Bytes read from a file at once."""
MAX_RATIO = 500
"""Expansion beyond which a compressed file is refused as a decompression bomb; text reaches 3 to 100."""
RATIO_FLOOR_BYTES = 64 << 20
"""Decompressed bytes before the ratio is checked, so that small unusual files pass."""

_GZIP_OUTPUT_BYTES = 1 << 20
_ZSTD_INPUT_BYTES = (
    2 << 10
)  # 4 bytes of zstd can stand for 128 KiB, so this bounds one call's output by 64 MiB


class TornStreamError(InputError):
    """The bytes of a file end too early or cannot be decompressed further; the bytes before are good.

    transient: the system could not read them; the bytes themselves may be good.
    """

    transient = False


class UnreadStreamError(TornStreamError):
    """The system could not read further (an error of the disk or the network)."""

    transient = True


class Hasher(Protocol):
    """Interface of `hashlib` objects."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add bytes."""
        ...

    def hexdigest(self) -> str:
        """Return the hash as hex digits."""
        ...


class _Plain:
    finished = True

    def step(self, data: memoryview) -> tuple[bytes, int]:
        return bytes(data), len(data)


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self.finished = True

    def step(self, data: memoryview) -> tuple[bytes, int]:
        if self.finished:  # a new member; zeros between or after members are padding
            if data[0] == 0:
                padding = len(data) - len(bytes(data).lstrip(b"\0"))
                return b"", padding
            self._inner = zlib.decompressobj(wbits=31)
        output = self._inner.decompress(data, _GZIP_OUTPUT_BYTES)
        self.finished = self._inner.eof
        left = self._inner.unused_data if self.finished else self._inner.unconsumed_tail
        return output, len(data) - len(left)


class _Zstd:
    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor().decompressobj()
        self.finished = True

    def step(self, data: memoryview) -> tuple[bytes, int]:
        if self.finished:  # a new frame
            self._inner = zstandard.ZstdDecompressor().decompressobj()
        piece = data[:_ZSTD_INPUT_BYTES]
        output = self._inner.decompress(piece)
        self.finished = self._inner.eof
        return output, len(piece) - (len(self._inner.unused_data) if self.finished else 0)


_DECODERS: dict[str, type[_Plain] | type[_Gzip] | type[_Zstd]] = {"": _Plain, "gzip": _Gzip, "zstd": _Zstd}


class ByteStream:
    """A file's decompressed bytes, one chunk at a time; a context manager.

    It can be closed at any point: the next read opens the file again where it stopped. The chunks depend on the file
    alone, so two passes over it see the same end, also of a damaged file.
    """

    def __init__(
        self, path: str, compression: str = "", *, offset: int = 0, hasher: Hasher | None = None
    ) -> None:
        """Store the path without opening it. `offset` skips bytes of the file; `hasher` gets its raw bytes."""
        self.path = path
        self._compression = compression
        self._decoder = _DECODERS[compression]()
        self._raw: BinaryIO | None = None
        self._position = offset
        self._waiting = memoryview(b"")
        self._hasher = hasher
        self._num_in = self._num_out = 0

    def __enter__(self) -> "ByteStream":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._raw is not None:
            self._raw.close()
            self._raw = None

    def read(self) -> bytes:
        """Return the next decompressed bytes, at most 64 MiB; b"" at the end.

        Raises: OSError if the file cannot be opened; TornStreamError if it is damaged later.
        """
        while True:
            if not self._waiting:
                self._waiting = memoryview(self._read_raw())
                if not self._waiting:
                    if self._decoder.finished:
                        return b""
                    raise TornStreamError(
                        f"the {self._compression} data is cut short after {self._position:,} bytes"
                    )
            try:
                output, used = self._decoder.step(self._waiting)
            except (zlib.error, zstandard.ZstdError) as error:
                near = self._position - len(self._waiting)
                raise TornStreamError(
                    f"broken {self._compression} data near byte {near:,}: {error}"
                ) from None
            self._waiting = self._waiting[used:]
            self._check_ratio(used, len(output))
            if output:
                return output

    def drain(self) -> None:
        """Read the rest of the file without decompressing it, so that the hasher has seen all of it."""
        while self._read_raw():
            pass

    def _read_raw(self) -> bytes:
        if self._raw is None:
            self._raw = stores.open_bytes(self.path)
            if self._position:
                self._raw.seek(self._position)
        try:
            data = self._raw.read(CHUNK_BYTES)
        except OSError as error:
            raise UnreadStreamError(
                f"reading stops at byte {self._position:,}: {stores.error_text(error)}"
            ) from None
        self._position += len(data)
        if self._hasher is not None:
            self._hasher.update(data)
        return data

    def _check_ratio(self, num_in: int, num_out: int) -> None:
        self._num_in += num_in
        self._num_out += num_out
        if self._num_out > RATIO_FLOOR_BYTES and self._num_out > MAX_RATIO * self._num_in:
            raise TornStreamError(
                f"{self._num_in:,} bytes expand to more than {self._num_out:,}, over {MAX_RATIO}-fold, as a "
                "decompression bomb does; text does not, so the rest is not read"
            )
