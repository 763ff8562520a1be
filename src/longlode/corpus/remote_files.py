"""Calls to remote stores and files in them, tried again after errors that may pass."""

import io
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

ATTEMPTS = 4
"""Tries of one call, the first included."""
FIRST_PAUSE_SECONDS = 0.5
"""Pause before the second try; each later one is twice as long."""

BLOCK_BYTES = 8 << 20
"""Bytes fetched by one request; stores' own defaults go up to 50 MiB for each open file."""

_DOWNLOAD = "download the file and name the copy"
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError)
_GONE = (404, 410)  # HTTP: not found, gone
_ASK_AGAIN = (408, 425, 429)  # HTTP: timeout, too early, too many requests
_T = TypeVar("_T")


def with_retries(call: Callable[[], _T], name: str) -> _T:
    """Make a call to a store, and again after errors that may pass: at most ATTEMPTS times, with growing pauses.

    Missing files, missing permissions and answers such as "400 Bad Request" are not tried again. Each retry is logged.
    Args: name, of what is read, for the log. Raises: the last error.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except Exception as raised:  # every store has its own errors: network, throttling
            error = _underlying(raised)
            if attempt == ATTEMPTS or not _may_pass(error):
                raise error from raised.__cause__
            pause = FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)
            logger.warning(
                "%s: %s: %s; try %d of %d in %g s",
                name,
                type(error).__name__,
                error,
                attempt + 1,
                ATTEMPTS,
                pause,
            )
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _underlying(error: Exception) -> Exception:
    """Return what an error stands for: the HTTP store reports every failure to ask about a file as a missing file."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    return error if getattr(cause, "status", None) in _GONE else cause


def _may_pass(error: Exception) -> bool:
    """Return True for an error after which the same call may succeed."""
    if isinstance(error, _LASTING):
        return False
    status = getattr(error, "status", None)  # of aiohttp's errors, by which the HTTP store reports answers
    if isinstance(status, int) and 400 <= status < 500:
        return status in _ASK_AGAIN
    return not isinstance(error, ValueError | TypeError | ImportError)


class RemoteFile(io.RawIOBase):
    """A file of a remote store for reading. After an error it is opened again at the same place.

    A web server that serves no ranges is read from the start, and only forwards.
    """

    def __init__(self, store: Any, inner: str, name: str) -> None:
        """Open the file. Args: store, a file system of fsspec; inner, the path in it; name, for messages.

        Raises: OSError.
        """
        super().__init__()
        self.name = name
        self._store, self._path = store, inner
        self._position = 0
        self._streams = False  # reads one answer from its start on
        self._file: Any = None
        self._retry(self._at_position)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True: `seek` says where it is not so."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the place of the next byte. Raises: OSError for a place that the store cannot reach."""
        if whence == io.SEEK_END:
            size = self._retry(lambda: self._at_position().size)
            if size is None:
                raise OSError(f"{self.name}: the server does not tell the size of the file; {_DOWNLOAD}")
            offset += int(size)
        elif whence == io.SEEK_CUR:
            offset += self._position
        if self._streams and offset < self._position:
            raise OSError(f"{self.name}: the server serves no ranges of a file; {_DOWNLOAD}")
        self._position = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes (-1: to the end); b"" at the end. Raises: OSError."""
        data: bytes = self._retry(lambda: self._read_here(size))
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there are bytes. Raises: OSError."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()

    def _retry(self, call: Callable[[], _T]) -> _T:
        def fresh() -> _T:
            try:
                return call()
            except Exception:
                self._file = None  # it may be left in any state
                raise

        try:
            return with_retries(fresh, self.name)
        except OSError:
            raise
        except Exception as error:  # a store's own error
            raise OSError(f"{type(error).__name__}: {error}") from error

    def _read_here(self, size: int) -> bytes:
        try:
            return bytes(self._at_position().read(size))
        except ValueError:  # fsspec's answer to a server that sends the whole file for any range
            if self._streams or not self.name.startswith(("http://", "https://")):
                raise
            self._streams, self._file = True, None
            return bytes(self._at_position().read(size))

    def _at_position(self) -> Any:
        """Return the open file, which stands at the place."""
        if self._file is None:
            block = 0 if self._streams else BLOCK_BYTES
            self._file = self._store.open(self._path, "rb", block_size=block)
        place = self._file.tell()
        if place == self._position:
            return self._file
        try:
            self._file.seek(self._position)
        except ValueError:  # a stream
            self._streams = True
            while place < self._position and (piece := self._file.read(min(self._position - place, 1 << 20))):
                place += len(piece)
        return self._file
