"""What comes out of the input: a readable document, or a row that says why there is none."""

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
    file: name of the file relative to the input it was found through, with `/` between folders, on every
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
    """One input row that gave no document; the same places as in `Document`, and why.

    status: "failed" (it should have been a document), "skipped" (it was not one: binary, hidden, of an
      unknown suffix) or "too_short" (its text is empty).
    num_bytes: what the row takes in the file, before decompression where only that is known; 0 if unknown.
    transient: another try may go otherwise: the file could not be read just now, has gone, or has changed since it
      was planned. Such a row says nothing of the content that was planned, and is no result to keep.
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
    """The first 8 bytes of the (64-byte) BLAKE2b hash of the id's UTF-8 bytes, read big-endian."""
    digest = hashlib.blake2b(document_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def in_heldout(document_id: str, fraction: float) -> bool:
    """True if the document belongs to the held-out part: `id_hash(document_id) / 2**64 < fraction`.

    The rule reads the id alone, so a document stays on its side whatever else is in the corpus, on every
    machine; raising the fraction only adds to the held-out part.
    """
    return id_hash(document_id) / 2**64 < fraction
