"""Units of work that a corpus is cut into: the same on every machine, named by content."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from longlode.core.fingerprints import fingerprint
from longlode.corpus.formats import LINES
from longlode.corpus.spans import Span

FILES = "files"
NO_RECORDS = "the file holds no records"
NO_ROWS = "the file holds no rows"


@dataclass(frozen=True)
class UnitFile:
    """A file of a unit.

    path: local path or URL. name: relative to the input root. content: what names the version that was planned: of a
    whole text, SHA-256 of its bytes; of Parquet and Arrow, a hash of its size, its time and its end; of a remote
    file, the store's own version tag; "" for lines, which `Unit.digest` names. modified: when a local file was last
    written, in nanoseconds, -1 if unknown. source: as of `InputFile`. status, reason: set for a file that is
    reported, not read.
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

    kind: "lines", "parquet", "arrow" or "files". offset: (decompressed) byte where row `start` of lines begins; an
      estimate for tables; 0 for whole files.
    num_bytes: its size, an estimate for tables. digest: of the bytes of lines up to row `end`, as of `Span`; "" if
      unknown. end: `stop`, or more where a limit ends the unit early.
    data: the (decompressed) bytes of lines, where the pass that found the unit kept them; else None, and they are read
    again. No part of the unit's identity.
    `to_json` and `from_json` convert a unit to plain JSON and back.
    """

    kind: str
    files: tuple[UnitFile, ...]
    start: int
    stop: int
    offset: int = 0
    num_bytes: int = 0
    digest: str = ""
    end: int = -1
    data: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def fingerprint(self) -> str:
        """Hash of the files' names and sources, of the content and of the rows, not of the files' location.

        Lines are named by their own bytes, so that they keep their name when the file grows.
        """
        if self.kind == LINES:
            [file] = self.files
            return fingerprint([LINES, file.name, file.source, self.digest, self.start, self.stop])
        files = [
            [file.name, file.source, file.num_bytes, file.content, file.status, file.reason]
            for file in self.files
        ]
        return fingerprint([self.kind, files, self.start, self.stop])

    @property
    def num_rows(self) -> int:
        """Rows of the input, blank lines among them."""
        return self.stop - self.start

    def first_rows(self, number: int) -> "Unit":
        """Return the unit of its first rows, at most all of them."""
        num_rows = self.num_rows
        if number >= num_rows:
            return self
        files = self.files[:number] if self.kind == FILES else self.files
        size = self.num_bytes * number // num_rows
        end = self.stop if self.kind == LINES else -1
        return replace(self, files=files, stop=self.start + number, num_bytes=size, end=end)

    def to_json(self) -> dict[str, Any]:
        """Convert to plain dicts, lists, strings and integers, without `data`."""
        value = asdict(self.bare())
        del value["data"]
        return value

    def bare(self) -> "Unit":
        """Return the unit without `data`, to be kept."""
        return self if self.data is None else replace(self, data=None)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Unit":
        """Make the unit that `to_json` wrote, also that of an earlier version, whose content is not checked."""
        known = {name: item for name, item in value.items() if name != "checksum"}
        return cls(**{**known, "files": tuple(UnitFile(**file) for file in value["files"])})


def span_unit(kind: str, file: UnitFile, span: Span) -> Unit:
    """Make the unit of a span of a records file."""
    place = (span.start, span.stop, span.offset, span.num_bytes, span.digest, span.stop)
    return Unit(kind, (file,), *place, data=span.data)


def files_unit(files: list[UnitFile]) -> list[Unit]:
    """Make the unit of whole files, none for no files."""
    size = sum(max(file.num_bytes, 0) for file in files if not file.status)
    return [Unit(FILES, tuple(files), 0, len(files), 0, size)] if files else []
