"""The plan of a pass over a corpus: its units in order, found while the corpus is read.

Files are listed first; their contents are looked at one after the other, when the units before them have been asked
for. Where a unit begins and ends depends on nothing but the input:

    lines                 rows up to a size; counted by one pass over the file, from its beginning
    Parquet, Arrow        rows up to a size, by the file's own footer or headers
    whole texts           consecutive files up to a size and a number, hashed

What a pass over some files found can be kept in a folder (`PlanStore`), by their names, sizes and times: the next plan
of the same files reads none of them. Small files are kept together, a large file of lines in pieces.
"""

import hashlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from longlode.core.defaults import ROWS_PER_UNIT
from longlode.core.errors import ConfigError, InputError
from longlode.core.fingerprints import fingerprint
from longlode.core.sealed_json import read_sealed, write_sealed
from longlode.corpus import stores
from longlode.corpus.arrow import index_arrow
from longlode.corpus.document import FAILED, SKIPPED
from longlode.corpus.formats import ARROW, LINES, PARQUET, TEXT, WARC
from longlode.corpus.inputs import InputFile, Inputs, find_files
from longlode.corpus.parquet import index_parquet
from longlode.corpus.spans import LineScan, Span, unit_bytes
from longlode.corpus.streams import CHUNK_BYTES
from longlode.corpus.tables import TableDamageError
from longlode.corpus.units import FILES, NO_RECORDS, NO_ROWS, Unit, UnitFile, files_unit, span_unit
from longlode.corpus.warc import index_warc

BYTES_PER_UNIT = 8 << 20
FILES_PER_UNIT = 512
PIECE_BYTES = 1 << 30
"""Bytes of a large file, or of a run of small ones, that are planned and kept together."""
_FILES_PER_PIECE = 4096
_TEXT_PER_BYTE = 4
"""Bytes of text taken for each byte of a compressed file, until it is read."""
_PIECES_PER_SHARD = 16
_END_BYTES = 64 << 10
_PLAN_FORMAT = 1
_TABLES = {PARQUET: index_parquet, ARROW: index_arrow, WARC: index_warc}


@dataclass(frozen=True)
class Shard:
    """One of `total` equal shares of a corpus, from 1."""

    number: int
    total: int

    def __post_init__(self) -> None:
        """Raises: ConfigError for a share that does not exist."""
        if not 1 <= self.number <= self.total:
            raise ConfigError(
                f"the shard is {self}; expected one from 1/{self.total} to {self.total}/{self.total}."
            )

    def __str__(self) -> str:
        """As it is given: 3/8."""
        return f"{self.number}/{self.total}"


@dataclass(frozen=True)
class PlanStore:
    """Folder of what passes over files found, one file for each piece of the input."""

    folder: Path

    def load(self, key: str) -> tuple[list[Unit], list[Any] | None] | None:
        """Return the units of a piece, and where the next one begins; None if it is not kept, or not whole."""
        found = read_sealed(self._path(key))
        return None if found is None else ([Unit.from_json(one) for one in found["units"]], found["next"])

    def save(self, key: str, units: list[Unit], following: list[Any] | None = None) -> None:
        """Keep the units of a piece. Raises: InputError if the folder cannot be written."""
        value = {"units": [unit.to_json() for unit in units], "next": following}
        try:
            write_sealed(self._path(key), value)
        except OSError as error:
            raise InputError(f"{self.folder} cannot be written: {stores.error_text(error)}.") from None

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.plan"


@dataclass
class _Listed:
    """A file, and where it lies among all: `position` is the sum of the estimated sizes of those before it."""

    file: InputFile
    position: int
    size: int


@dataclass
class _Amounts:
    """Bytes planned so far: of units, of whole files that wait for more of their unit, and as they were listed. rows:
    of the units.
    """

    units: int = 0
    rows: int = 0
    held: int = 0
    listed: int = 0


class CorpusPlan:
    """The units of a corpus, or of a shard of it."""

    def __init__(
        self,
        inputs: Inputs,
        *,
        rows_per_unit: int = ROWS_PER_UNIT,
        bytes_per_unit: int = BYTES_PER_UNIT,
        exclude: Path | None = None,
        limit: int | None = None,
        shard: Shard | None = None,
        store: PlanStore | None = None,
    ) -> None:
        """List the files. Args: shard, None for all; store, what to keep the plan in; the others as of `plan`."""
        if limit is not None and limit < 1:
            raise ConfigError(f"limit is {limit}; expected at least 1, or none.")
        if limit is not None and shard is not None:
            raise ConfigError("a limit counts the rows of all shards; expected a limit or a shard, not both.")
        if rows_per_unit < 1 or bytes_per_unit < 1:
            raise ConfigError(
                f"rows_per_unit is {rows_per_unit} and bytes_per_unit {bytes_per_unit}; both must be at least 1."
            )
        self._rows, self._bytes = rows_per_unit, bytes_per_unit
        self._limit, self._shard, self._store = limit, shard, store
        self._files: list[_Listed] = []
        position = 0
        for file in find_files(inputs, exclude=exclude):
            self._files.append(_Listed(file, position, _estimated_bytes(file)))
            position += self._files[-1].size
        shards = 1 if shard is None else shard.total
        self._share_bytes = min(PIECE_BYTES, max(1, bytes_per_unit, position // (_PIECES_PER_SHARD * shards)))
        self._listed_bytes = position // shards
        self._amounts, self._is_done, self._with_data = _Amounts(), False, False

    @property
    def total_bytes(self) -> int:
        """Bytes of all units; while they are not all known, an estimate from the sizes of the files."""
        known = self._amounts.units + self._amounts.held
        listed = self._amounts.listed
        left = 0 if self._is_done else max(0, self._listed_bytes - listed)
        left = left * known // listed if known and listed else left
        rows = self._amounts.rows
        if self._limit is not None and rows:
            left = min(left, (self._limit - rows) * known // rows)
        return known + left

    @property
    def is_done(self) -> bool:
        """True when all units have been asked for."""
        return self._is_done

    def units(self, *, with_data: bool = False) -> Iterator[Unit]:
        """Yield the units in order, each as soon as its end is known.

        Args: with_data, units of lines of remote and of compressed files that are read for the plan have their `data`,
          so that nothing is fetched or decompressed twice; whoever keeps units keeps them `bare`.
        """
        self._with_data = with_data
        self._amounts, self._is_done = _Amounts(), False
        left = self._limit
        for unit in self._all():
            kept = unit if left is None else unit.first_rows(left)
            self._amounts.units += kept.num_bytes
            self._amounts.rows += kept.num_rows
            if kept.kind == FILES:
                self._amounts.held = 0
            if left is not None:
                left -= kept.num_rows
                self._is_done = left == 0  # before it is handed out
            yield kept
            if left == 0:
                return
        self._is_done = True

    def _all(self) -> Iterator[Unit]:
        for piece in self._pieces():
            [*others, last] = piece
            if not others and last.size > PIECE_BYTES and last.file.kind == LINES:
                yield from self._large(last)
            else:
                yield from self._small(piece)

    def _pieces(self) -> Iterator[list[_Listed]]:
        """Yield the files that are planned together: one of more than `PIECE_BYTES`, or several up to that size."""
        piece: list[_Listed] = []
        size = 0
        for one in self._files:
            if not self._may_own(one):
                continue
            if piece and (size + one.size > PIECE_BYTES or len(piece) >= _FILES_PER_PIECE):
                yield piece
                piece, size = [], 0
            piece.append(one)
            size += one.size
        if piece:
            yield piece

    def _owns(self, position: int) -> bool:
        shard = self._shard
        return shard is None or position // self._share_bytes % shard.total == shard.number - 1

    def _may_own(self, one: _Listed) -> bool:
        """Return True if this shard may have units of a file; small compressed files and whole texts are not shared."""
        if not _is_shared(one):
            return self._owns(one.position)
        shares = range(one.position // self._share_bytes, (one.position + one.size) // self._share_bytes + 1)
        has_unknown_end = bool(one.file.compression)
        return has_unknown_end or any(self._owns(share * self._share_bytes) for share in shares)

    def _owns_span(self, one: _Listed, span: Span) -> bool:
        return self._owns(one.position + (span.offset if _is_shared(one) else 0))

    def _small(self, piece: list[_Listed]) -> Iterator[Unit]:
        """Yield the units of files that are planned together."""
        key = self._key([one.file for one in piece])
        kept = None if key is None or self._store is None else self._store.load(key)
        if kept is not None:
            for unit in kept[0]:
                self._amounts.listed += unit.num_bytes
                yield unit
            self._amounts.listed += sum(one.size for one in piece) - sum(unit.num_bytes for unit in kept[0])
            return
        found: list[Unit] = []
        cut = _Cut(self._rows, self._bytes, with_data=self._with_data)
        for one in piece:
            left = one.size
            for unit in cut.units_of(one.file, partial(self._owns_span, one)):
                found.append(unit.bare())
                step = min(left, unit.num_bytes) if unit.kind != FILES else 0
                self._amounts.listed, left = self._amounts.listed + step, left - step
                yield unit
            self._amounts.listed += left
            self._amounts.held = cut.whole_bytes
        found += (last := cut.close())
        yield from last
        if key is not None and self._store is not None and cut.is_lasting:
            self._store.save(key, found)

    def _large(self, one: _Listed) -> Iterator[Unit]:
        """Yield the units of a large file of lines; where it was cut before, without reading it."""
        place: list[Any] | None = [0, 0, True]
        while place is not None:
            key = self._key([one.file], place)
            kept = None if key is None or self._store is None else self._store.load(key)
            if kept is None:
                yield from self._scan_large(one, *place)
                return
            yield from (unit for unit in kept[0] if self._owns(one.position + unit.offset))
            place = kept[1]
            self._count_piece(one, is_last=place is None)

    def _scan_large(self, one: _Listed, row: int, offset: int, is_blank: bool) -> Iterator[Unit]:
        """Yield the units of a large file from a row on, and keep them piece by piece."""
        file, modified = one.file, stores.modified(one.file.path)
        keeps_data = self._with_data and file.is_costly
        how = (file.path, file.compression, self._rows, self._bytes, PIECE_BYTES)
        scan = LineScan(*how, row, offset, is_blank, keeps_data)
        named = _unit_file(file, modified=modified)
        begin: list[Any] = [row, offset, is_blank]
        found: list[Unit] = []
        try:
            for span in scan.spans():
                if found and span.offset // PIECE_BYTES != begin[1] // PIECE_BYTES:
                    following = [span.start, span.offset, scan.is_blank]
                    self._keep_large(file, begin, found, following)
                    begin, found = following, []
                    self._count_piece(one)
                unit = span_unit(LINES, named, span)
                found.append(unit.bare())
                if self._owns_span(one, span):
                    yield unit
        except OSError as error:
            if self._owns(one.position):
                yield from files_unit([_unread(file, modified, error)])
            return
        if scan.is_blank:
            found += files_unit([_unit_file(file, "", modified, SKIPPED, NO_RECORDS)])
            yield from found[-1:] if self._owns(one.position) else []
        self._keep_large(file, begin, found, None)
        self._count_piece(one, is_last=True)

    def _count_piece(self, one: _Listed, *, is_last: bool = False) -> None:
        shards = 1 if self._shard is None else self._shard.total
        self._amounts.listed += (one.size % PIECE_BYTES if is_last else PIECE_BYTES) // shards

    def _keep_large(
        self, file: InputFile, place: list[Any], units: list[Unit], following: list[Any] | None
    ) -> None:
        key = self._key([file], place)
        if key is not None and self._store is not None:
            self._store.save(key, units, following)

    def _key(self, files: list[InputFile], place: list[Any] | None = None) -> str | None:
        """Name what a pass over these files finds; None if nothing names their versions."""
        versions = [_version(file.path) if file.kind else "" for file in files]
        if any(version is None for version in versions):
            return None
        shape = [
            _PLAN_FORMAT,
            self._rows,
            self._bytes,
            place,
            self._shard and [asdict(self._shard), self._share_bytes],
        ]
        if place is not None:
            shape.pop()  # a large file is cut alike for all shards
        return fingerprint([shape, [[*asdict(file).values()] for file in files], versions])


@dataclass
class _Cut:
    """Cutter of files that are planned together into units.

    with_data: as of `CorpusPlan.units`. is_lasting: False once a file could not be read. whole_bytes: of the files in
    the open unit of whole files.
    """

    rows: int
    num_bytes: int
    is_lasting: bool = True
    whole_bytes: int = 0
    with_data: bool = False
    _seen_bytes: int = 0
    _whole: list[UnitFile] = field(default_factory=list)

    def units_of(self, file: InputFile, owns: Callable[[Span], bool]) -> Iterator[Unit]:
        """Yield the units that end with, or in, the next file. Args: owns, says which spans to yield."""
        modified = (
            stores.modified(file.path) if file.kind else -1
        )  # before it is read, so that later writes are seen
        try:
            reported = yield from self._units_of(file, modified, owns)
        except OSError as error:
            self.is_lasting = False
            reported = _unread(file, modified, error)
        if reported is not None:
            yield from self._add(reported)

    def _units_of(
        self, file: InputFile, modified: int, owns: Callable[[Span], bool]
    ) -> Generator[Unit, None, UnitFile | None]:
        if file.status:
            return _unit_file(file)
        if file.kind == TEXT:
            return _unit_file(file, text_content(file.path), modified)
        content = "" if file.kind == LINES else table_content(file.path)
        named = _unit_file(file, content, modified)
        spans = self._lines(file) if file.kind == LINES else iter(self._rows_of(file))
        try:
            first = next(spans, None)
        except TableDamageError as error:
            self.is_lasting = self.is_lasting and not error.transient
            return _unit_file(file, "" if error.transient else content, modified, FAILED, str(error))
        if first is None:
            nothing = NO_RECORDS if file.kind == LINES else NO_ROWS
            return _unit_file(file, content, modified, SKIPPED, nothing)
        yield from self.close()
        for span in chain([first], spans):
            if owns(span):
                yield span_unit(file.kind, named, span)
        return None

    def _lines(self, file: InputFile) -> Iterator[Span]:
        """Yield the spans of a file of lines, none if all of them are blank."""
        how = (file.path, file.compression, self.rows, self.num_bytes, PIECE_BYTES)
        scan = LineScan(*how, keeps_data=self.with_data and file.is_costly)
        held: list[Span] = []
        for span in scan.spans():
            held.append(replace(span, data=None) if scan.is_blank else span)
            if not scan.is_blank:
                yield from held
                held.clear()

    def _rows_of(self, file: InputFile) -> Iterator[Span]:
        yield from _TABLES[file.kind](file.path, max_rows=self.rows, max_bytes=self.num_bytes)

    def _add(self, file: UnitFile) -> Iterator[Unit]:
        """Put a whole file into the open unit; yields that unit first if it is full."""
        size = 0 if file.status else max(file.num_bytes, 0)
        most = unit_bytes(self._seen_bytes, self.num_bytes)
        is_full = len(self._whole) >= min(FILES_PER_UNIT, self.rows) or self.whole_bytes + size > most
        if self._whole and is_full:
            yield from self.close()
        self._whole.append(file)
        self.whole_bytes += size

    def close(self) -> list[Unit]:
        """End the open unit of whole files."""
        found = files_unit(self._whole)
        self._seen_bytes += self.whole_bytes
        self._whole, self.whole_bytes = [], 0
        return found


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
    files). Files of lines and whole texts are read once; nothing is decoded. `CorpusPlan` does the same as it goes.
    Files that cannot be opened, are empty, or are left out of a folder are included, with a status and a reason.

    Args: inputs, exclude: as of `find_files`. limit: plan only this many rows, the first ones; files after the last of
      them are not read.
    Raises: InputError for an input that is missing or holds nothing to read; ConfigError for a limit below 1.
    """
    cut = {"rows_per_unit": rows_per_unit, "bytes_per_unit": bytes_per_unit, "limit": limit}
    return list(CorpusPlan(inputs, exclude=exclude, **cut).units())  # type: ignore[arg-type]


def text_content(path: str) -> str:
    """Return what names the content of a whole text, as in `UnitFile.content`. Raises: OSError."""
    if stores.is_url(path):
        return stores.remote_version(path)
    hasher = hashlib.sha256()
    with stores.open_bytes(path) as stream:
        while block := stream.read(CHUNK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()


def table_content(path: str) -> str:
    """Return what names a version of a Parquet or Arrow file, as in `UnitFile.content`. Raises: OSError.

    A local one is not read as a whole: its size, its time and its end, where Parquet has its footer, are hashed.
    """
    if stores.is_url(path):
        return stores.remote_version(path)
    with stores.open_bytes(path) as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _END_BYTES))
        hasher = hashlib.sha256(f"{size} {stores.modified(path)} ".encode())
        hasher.update(stream.read())
    return hasher.hexdigest()


def _estimated_bytes(file: InputFile) -> int:
    """Return about how many bytes of text a file holds; more than a piece if nothing is known of lines."""
    if file.status:
        return 0
    if file.num_bytes < 0:
        return PIECE_BYTES + 1 if file.kind == LINES else 0
    return file.num_bytes * (_TEXT_PER_BYTE if file.compression else 1)


def _is_shared(one: _Listed) -> bool:
    """Return True if several shards may have units of a file."""
    return one.file.kind in (LINES, *_TABLES) and (not one.file.compression or one.size > PIECE_BYTES)


def _version(path: str) -> str | None:
    """Return what changes when a file changes, without reading it; None if the system does not say."""
    if not stores.is_url(path):
        modified = stores.modified(path)
        return None if modified < 0 else str(modified)
    try:
        return stores.remote_version(path)
    except OSError:
        return None


def _unread(file: InputFile, modified: int, error: OSError) -> UnitFile:
    return _unit_file(file, "", modified, FAILED, f"cannot be read: {stores.error_text(error)}")


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
