"""Results of reading a corpus: a `Document`, or an `Unreadable` row with the reason."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

TOO_SHORT = "too_short"
SKIPPED = "skipped"
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Document:
    """One text and where it came from.

    id: the record's own `id` (a string, or an integer as text); else `FILE#ROW`; for a whole file its name.
    source: the record's own `source`; else the file's stem (of a saved dataset's Arrow file: its folder's name). For
      a whole file its folder below the input root, or the name of that root where the file lies right in it: `books`
      for `books/a.txt`, read as `books/`, `books/*.txt` or `books/a.txt`.
    file: name of the file relative to the input it was found through, with `/` between folders on every
      machine.
    row: 0-based line of a JSON-lines file, row of a Parquet or Arrow file, 0 for a whole file.
    metadata: the record's other fields; empty for a whole file.
    """

    id: str
    text: str
    source: str
    file: str
    row: int
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Length of the text in UTF-8 bytes."""
        return len(self.text if self.text.isascii() else self.text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """One input row that gave no document: id, source, file and row as in `Document`, and the reason.

    status: "failed" (it should have been a document), "skipped" (it was not one: binary, hidden, of an
      unknown suffix) or "too_short" (its text is empty).
    num_bytes: size of the row in the file (compressed, where only that is known); 0 if unknown.
    transient: another try may succeed: the file could not be read just now, is missing, or has changed since it
      was planned. Such a row says nothing about the planned content and must not be kept as a result.
    """

    id: str
    source: str
    file: str
    row: int
    status: str
    reason: str
    num_bytes: int = 0
    transient: bool = False


def id_hash(document_id: str) -> int:
    """Hash an id to an integer: the first 8 bytes, big-endian, of the (64-byte) BLAKE2b hash of its UTF-8 bytes."""
    digest = hashlib.blake2b(document_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def in_heldout(document_id: str, fraction: float) -> bool:
    """Return True if the document belongs to the held-out part: `id_hash(document_id) / 2**64 < fraction`.

    The rule reads only the id, so the split does not depend on the rest of the corpus or on the machine; raising the
    fraction only adds to the held-out part.
    """
    return id_hash(document_id) / 2**64 < fraction
