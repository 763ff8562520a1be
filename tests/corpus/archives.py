"""Web archives for tests and fuzzing, written by hand as the WARC standard says."""

import gzip
import uuid


def warc_record(kind, content, *, headers=(), content_type="text/plain"):
    """The bytes of a record, and its id."""
    name = f"urn:uuid:{uuid.uuid4()}"
    lines = [
        "WARC/1.0",
        f"WARC-Type: {kind}",
        f"WARC-Record-ID: <{name}>",
        "WARC-Date: 2026-11-28T00:00:00Z",
        f"Content-Type: {content_type}",
        *headers,
        f"Content-Length: {len(content)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n\r\n", name


def http_answer(body, content_type="text/plain; charset=utf-8", extra=""):
    """An answer of a web server, as `response` records hold it."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def packed(records):
    """Each record as a gzip member of its own, as crawlers write archives."""
    return b"".join(gzip.compress(record, 1) for record in records)
