"""JSON files that say themselves if they are whole: compressed, after the hash of what follows."""

import hashlib
from pathlib import Path
from typing import Any

import orjson
import zstandard

from longlode.core.records import atomic_path

_DIGEST_BYTES = 32


def write_sealed(path: Path, value: Any) -> None:
    """Write JSON (numbers of numpy allowed), atomically. Equal values give equal bytes."""
    data = seal(value)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def read_sealed(path: Path) -> Any | None:
    """Read a file of `write_sealed`; None when it is missing, torn or changed."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    digest, data = whole[:_DIGEST_BYTES], whole[_DIGEST_BYTES:]
    if hashlib.sha256(data).digest() != digest:
        return None
    return orjson.loads(zstandard.ZstdDecompressor().decompress(data))


def seal(value: Any) -> bytes:
    """Return the bytes that `write_sealed` writes."""
    plain = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    data = zstandard.ZstdCompressor().compress(plain)
    return hashlib.sha256(data).digest() + data
