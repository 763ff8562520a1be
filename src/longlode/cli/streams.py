"""Standard input as a file to score, and rows on standard output."""

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

import orjson

from longlode.cli.console import echo_line
from longlode.core.errors import ConfigError, InputError
from longlode.core.outputs import full_path

STDIN = "-"
STDIN_FOLDER = "stdin"
_FORMATS = ("auto", "jsonl", "text")
_PACKED = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}
_HEAD_BYTES = 1 << 16


def spool_stdin(folder: Path, form: str) -> Path:
    """Write standard input to a file below `folder`, named by its content: the same input gives the same file.

    Input compressed by gzip or zstd is kept compressed.
    Args: form, "jsonl", "text" or "auto", which looks at the first line.
    Raises: ConfigError for another format, InputError when there is nothing to read.
    """
    if form not in _FORMATS:
        raise ConfigError(f"--format got {form!r}; expected one of {', '.join(_FORMATS)}.")
    if sys.stdin.isatty():
        raise InputError(
            "- reads standard input, and that is the terminal. Pipe documents in: cat notes.txt | longlode score - -o "
            "scores"
        )
    stream = sys.stdin.buffer
    head = stream.read(_HEAD_BYTES)
    if not head.strip():
        raise InputError("Standard input is empty; expected JSON lines or a text.")
    place = full_path(folder) / STDIN_FOLDER
    place.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=place)
    try:
        digest = _copy(head, stream, handle)
        # The folder called stdin gives the document of a text file its source.
        goal = place / digest[:16] / STDIN_FOLDER / f"stdin{_suffix(head, form)}"
        goal.parent.mkdir(parents=True, exist_ok=True)
        Path(name).replace(goal)
    finally:
        Path(name).unlink(missing_ok=True)
    return goal


def _copy(head: bytes, stream: BinaryIO, handle: int) -> str:
    hasher = hashlib.sha256()
    with os.fdopen(handle, "wb") as file:
        block = head
        while block:
            hasher.update(block)
            file.write(block)
            block = stream.read(1 << 20)
        file.flush()
        os.fsync(file.fileno())
    return hasher.hexdigest()


def _suffix(head: bytes, form: str) -> str:
    packed = next((suffix for magic, suffix in _PACKED.items() if head.startswith(magic)), "")
    if form == "auto":  # a packed stream is most likely one of records
        form = "jsonl" if packed or _is_record(head) else "text"
    return (".jsonl" if form == "jsonl" else ".txt") + packed


def _is_record(head: bytes) -> bool:
    """Tell if a stream begins with a JSON object on a line of its own."""
    line, newline, _ = head.lstrip().partition(b"\n")
    if not line.startswith(b"{"):
        return False
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return not newline  # an object longer than what was looked at


def print_rows(scores: Path) -> None:
    """Print the rows of a scores folder as JSON lines, in the order of the input."""
    import pyarrow.parquet as pq

    from longlode.api.scores import part_paths

    for part in part_paths(scores):
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    if not echo_line(row):
                        return
