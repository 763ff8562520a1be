"""Fingerprints: short hashes of content, the same on every machine."""

import hashlib
from pathlib import Path
from typing import Any

import orjson

_BLOCK_BYTES = 1 << 20


def fingerprint(value: Any) -> str:
    """Name a JSON-like value (dicts, lists, strings, numbers, None) by 16 hex digits of its BLAKE2b hash.

    Keys are sorted, so the order of a dict does not matter. Source: RFC 7693.
    """
    blob = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return hashlib.blake2b(blob, digest_size=8).hexdigest()


def text_fingerprint(text: str | bytes) -> str:
    """Name a text by 16 hex digits of the hash of its UTF-8 bytes (lone surrogates allowed).

    Args: text, or those bytes.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits; reads it in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
