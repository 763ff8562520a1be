"""Units of work that a corpus is cut into: the same on every machine, named by content."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from longlode.core.defaults import ROWS_PER_UNIT
from longlode.core.errors import ConfigError
from longlode.core.fingerprints import fingerprint
from longlode.corpus import stores
from longlode.corpus.arrow import index_arrow
from longlode.corpus.document import FAILED, SKIPPED
from longlode.corpus.formats import ARROW, LINES, PARQUET, TEXT
from longlode.corpus.inputs import InputFile, Inputs, find_files
from longlode.corpus.lines import Span, index_lines
from longlode.corpus.parquet import index_parquet
from longlode.corpus.streams import CHUNK_BYTES
from longlode.corpus.tables import TableDamageError

FILES = "files"
NO_RECORDS = "the file holds no records"
NO_ROWS = "the file holds no rows"
_MAX_FILES = 64

BYTES_PER_UNIT = 8 << 20


@dataclass(frozen=True)
class UnitFile:
    """A file of a unit.

    path: local path or URL. name: relative to the input root. content: SHA-256 of its bytes (for a remote file
    that need not be read to be planned, the store's own version tag). modified: when a local file was last written,
    in nanoseconds, -1 if unknown. source: as of `InputFile`. status, reason: set for a file that is reported, not read.
    """

    path: str
    name: str
    compression: str = ""
    num_bytes: int = -1
    content: str = ""
    modified: int = -1
    source: str = ""
    status: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Unit:
    """One unit of work: rows start <= row < stop of a records file, or a few whole files, one document each.

    kind: "lines", "parquet", "arrow" or "files". offset: byte where row `start` begins, for uncompressed lines, else
      0.
    num_bytes: its size, an estimate for Parquet. checksum: CRC-32 of the bytes of lines, -1 if unknown.
    `to_json` and `from_json` convert a unit to plain JSON and back.
    """

    kind: str
    files: tuple[UnitFile, ...]
    start: int
    stop: int
    offset: int = 0
    num_bytes: int = 0
    checksum: int = -1

    @property
    def fingerprint(self) -> str:
        """Hash of the files' names, sources and contents and of the rows, not of the files' location."""
        files = [
            [file.name, file.source, file.num_bytes, file.content, file.status, file.reason]
            for file in self.files
        ]
        return fingerprint([self.kind, files, self.start, self.stop])

    def to_json(self) -> dict[str, Any]:
        """Convert to plain dicts, lists, strings and integers."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Unit":
        """Make the unit that `to_json` wrote."""
        return cls(**{**value, "files": tuple(UnitFile(**file) for file in value["files"])})


def plan(
    inputs: Inputs,
    *,
    rows_per_unit: int = ROWS_PER_UNIT,
    bytes_per_unit: int = BYTES_PER_UNIT,
    exclude: Path | None = None,
    limit: int | None = None,
) -> list[Unit]:
    """Cut inputs into units; together they hold every row exactly once, in order.

    A unit closes at `rows_per_unit` rows or `bytes_per_unit` bytes, whichever comes first (64 files for whole
    files). Every local file is read once, to hash its content and to count lines; nothing is decoded.
    Files that cannot be opened, are empty, or are left out of a folder are included, with a status and a reason.

    Args: inputs, exclude: as of `find_files`. limit: plan only this many rows, the first ones; files after the last of
      them are not read.
    Raises: InputError for an input that is missing or holds nothing to read; ConfigError for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}; expected at least 1, or none.")
    if rows_per_unit < 1 or bytes_per_unit < 1:
        raise ConfigError(
            f"rows_per_unit is {rows_per_unit} and bytes_per_unit {bytes_per_unit}; both must be at least 1."
        )
    units: list[Unit] = []
    whole: list[UnitFile] = []
    for file in find_files(inputs, exclude=exclude):
        if limit is not None and _num_rows(units) + len(whole) >= limit:
            break
        named, spans = _examine(file, rows_per_unit, bytes_per_unit)
        if spans:
            units += _files_unit(whole)
            whole = []
            units += [_span_unit(file.kind, named, span) for span in spans]
            continue
        if whole and (
            len(whole) >= min(_MAX_FILES, rows_per_unit) or _size([*whole, named]) > bytes_per_unit
        ):
            units += _files_unit(whole)
            whole = []
        whole.append(named)
    return _first_rows(units + _files_unit(whole), limit)


def _num_rows(units: list[Unit]) -> int:
    return sum(unit.stop - unit.start for unit in units)


def _first_rows(units: list[Unit], limit: int | None) -> list[Unit]:
    """Return the units of the first `limit` rows, the last one cut."""
    kept: list[Unit] = []
    left = _num_rows(units) if limit is None else limit
    for unit in units:
        if left <= 0:
            break
        num_rows = unit.stop - unit.start
        if num_rows > left:  # its checksum is that of all its lines
            size = unit.num_bytes * left // num_rows
            files = unit.files[:left] if unit.kind == FILES else unit.files
            unit = replace(unit, files=files, stop=unit.start + left, num_bytes=size, checksum=-1)
        kept.append(unit)
        left -= num_rows
    return kept


def _examine(file: InputFile, max_rows: int, max_bytes: int) -> tuple[UnitFile, list[Span]]:
    """Hash a file's content, and cut the rows of a records file. No spans: one row of a "files" unit."""
    if file.status:
        return _unit_file(file), []
    modified = stores.modified(file.path)  # before it is read, so that later writes are noticed
    try:
        if file.kind == TEXT:
            return _unit_file(file, content_hash(file.path), modified), []
        if file.kind == LINES:
            index = index_lines(file.path, file.compression, max_rows=max_rows, max_bytes=max_bytes)
            content, spans = index.content, index.spans if index.has_text else []
        else:
            content = content_hash(file.path)
            spans = _TABLES[file.kind](file.path, max_rows=max_rows, max_bytes=max_bytes)
    except TableDamageError as error:
        return _unit_file(file, "" if error.transient else content, modified, FAILED, str(error)), []
    except OSError as error:
        return _unit_file(file, "", modified, FAILED, f"cannot be read: {stores.error_text(error)}"), []
    if not spans:
        nothing = NO_RECORDS if file.kind == LINES else NO_ROWS
        return _unit_file(file, content, modified, SKIPPED, nothing), []
    return _unit_file(file, content, modified), spans


_TABLES = {PARQUET: index_parquet, ARROW: index_arrow}


def _unit_file(
    file: InputFile, content: str = "", modified: int = -1, status: str = "", reason: str = ""
) -> UnitFile:
    return UnitFile(
        file.path,
        file.name,
        file.compression,
        file.num_bytes,
        content,
        modified,
        file.source,
        status or file.status,
        reason or file.reason,
    )


def content_hash(path: str) -> str:
    """Return the hash or version of a file's content, as in `UnitFile.content`. Raises: OSError."""
    if stores.is_url(path):
        return stores.remote_version(path)
    hasher = hashlib.sha256()
    with stores.open_bytes(path) as stream:
        while block := stream.read(CHUNK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()


def _size(files: list[UnitFile]) -> int:
    return sum(max(file.num_bytes, 0) for file in files if not file.status)


def _span_unit(kind: str, file: UnitFile, span: Span) -> Unit:
    offset = span.offset if kind == LINES and not file.compression else 0
    return Unit(kind, (file,), span.start, span.stop, offset, span.num_bytes, span.checksum)


def _files_unit(files: list[UnitFile]) -> list[Unit]:
    return [Unit(FILES, tuple(files), 0, len(files), 0, _size(files))] if files else []
