"""Damaged web archives, and what must come of them: as `fuzz_readers`, which see."""

import gzip
import random
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.fuzz_mutate import cut, damage
from benchmarks.fuzz_readers import Corpus
from longlode.corpus import Document, Unreadable

_LETTERS = "abc \né文\U0001f30b"
_HTTP = "application/http; msgtype=response"
_TYPES = ("text/plain", "text/plain; charset=latin-1", "text/html", "image/png", "", "text/plain; charset=x")
_ENCODINGS = ("", "Content-Encoding: gzip\r\n", "Transfer-Encoding: chunked\r\n", "Content-Encoding: br\r\n")


class Archive(Corpus):
    """A WET or WARC file, damaged in its records or after it was packed; or whole but for its end."""

    def __init__(self, name: str, suffix: str) -> None:
        """Args: name, of the kind; suffix, of its files."""
        self.name, self.suffix = name, suffix

    def mutant(self, draw: random.Random) -> tuple[bytes, Any]:
        """See `Corpus`. Known: the texts, and how many lie before the end that is cut off; None after other damage."""
        texts = ["".join(draw.choices(_LETTERS, k=draw.randint(1, 400))) for _ in range(draw.randint(1, 8))]
        records = [_record("conversion", text.encode(), "text/plain") for text in texts]
        if draw.random() < 0.4:
            data, pieces = self._packed(records)
            data = cut(data, draw)
            # The empty lines after a record may be cut off; a gzip member may not end before its last byte.
            spare = 0 if self.suffix.endswith(".gz") else len(b"\r\n\r\n")
            ends = [sum(pieces[: n + 1]) - spare for n in range(len(pieces))]
            return data, (texts, sum(end <= len(data) for end in ends))
        records += [_answer(draw) for _ in range(draw.randint(0, 3))]
        if draw.random() < 0.5:
            records = [damage(record, draw) if draw.random() < 0.4 else record for record in records]
        data, _ = self._packed(records)
        return (damage(data, draw) if draw.random() < 0.6 else data), None

    def oracle(self, data: bytes, known: Any, path: Path, rows: Sequence[Document | Unreadable]) -> str:
        """See `Corpus`: every record before the cut is a document, and nothing else is."""
        if known is None:
            return ""
        texts, num_whole = known
        read = [row.text for row in rows if isinstance(row, Document)]
        # All of a text may be there where its gzip member has lost the end.
        most = num_whole + self.suffix.endswith(".gz")
        if num_whole <= len(read) <= most and read == texts[: len(read)]:
            return ""
        return f"{len(read)} texts are read, of {num_whole} whole records"

    def _packed(self, records: list[bytes]) -> tuple[bytes, list[int]]:
        """The bytes of an archive, and of each of its records."""
        if self.suffix.endswith(".gz"):
            records = [gzip.compress(record, 1) for record in records]
        return b"".join(records), [len(record) for record in records]


def _record(kind: str, content: bytes, content_type: str) -> bytes:
    head = [
        "WARC/1.0",
        f"WARC-Type: {kind}",
        f"WARC-Record-ID: <urn:uuid:{uuid.UUID(int=len(content))}>",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(content)}",
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content + b"\r\n\r\n"


def _answer(draw: random.Random) -> bytes:
    body = "".join(draw.choices(_LETTERS, k=draw.randint(0, 300))).encode()
    encoding = draw.choice(_ENCODINGS)
    body = gzip.compress(body) if "gzip" in encoding else body
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {draw.choice(_TYPES)}\r\n{encoding}\r\n"
    return _record(draw.choice(("response", "request")), head.encode() + body, _HTTP)


ARCHIVES = (Archive("wet", ".wet"), Archive("warc", ".warc.gz"))
