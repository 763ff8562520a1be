"""Parts: the documents of a stretch of input as tokens, in one file that is complete or absent.

line 1   JSON: format, counts, kinds of the carried columns, bytes of the rows, BLAKE2b hash of what follows
rows     one JSON line per input row: a document (`DOCUMENT_COLUMNS`, `fields`), or the reason why there is none
tokens   little-endian int32 of all documents, each ended by eos
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from longlode.core.fingerprints import text_fingerprint
from longlode.core.records import atomic_path
from longlode.corpus import Document, Tokenizer, Unreadable, id_hash
from longlode.packing.chat import ChatTokenizer
from longlode.packing.columns import NOT_CARRIED, carried_name, common_kinds, kind_of

PART_FORMAT = 1
TOKEN_DTYPE = np.dtype("<i4")
_BATCH_CHARACTERS = 1 << 20
"""Texts that are encoded at once; a longer one is encoded alone. A tokenizer may take a hundred times their size."""
_NOTHING = np.zeros(0, dtype=TOKEN_DTYPE)
Row = Document | Unreadable


@dataclass(frozen=True)
class PartInfo:
    """Line 1 of a part. first_reason: why the first row that is no document is none; "" if all are."""

    num_documents: int
    num_tokens: int
    counts: dict[str, int]
    kinds: dict[str, str]
    first_reason: str


@dataclass(frozen=True, eq=False)
class Part:
    """A part that has been read: its line 1, its rows, its tokens, int32 `[num_tokens]`."""

    info: PartInfo
    rows: list[dict[str, Any]]
    tokens: np.ndarray


def encode_rows(rows: Iterable[Row], tokenizer: Tokenizer | ChatTokenizer) -> Part:
    """Tokenize documents; every row is kept, in order.

    A document that the tokenizer cannot encode is "failed", one without a token "too_short"; others are unaffected.
    """
    found, tokens, kinds = list[dict[str, Any]](), list[np.ndarray](), dict[str, str]()
    eos = np.array([tokenizer.eos_id], dtype=TOKEN_DTYPE)
    counts: Counter[str] = Counter()
    first_reason = ""
    for item, ids in _encoded(rows, tokenizer):
        place = {"id": item.id, "source": item.source, "file": item.file, "row": item.row}
        if isinstance(item, Unreadable):
            counts[item.status] += 1
            first_reason = first_reason or f"{item.id}: {item.reason}"
            found.append({**place, "status": item.status, "reason": item.reason})
            continue
        tokens += [ids, eos if ids[-1] >= 0 else ~eos]  # a chat that ends in a question has no last answer
        fields = {carried_name(name): value for name, value in item.metadata.items()}
        own_kinds = {name: kind_of(value) for name, value in fields.items()}
        kinds = common_kinds((kinds, own_kinds))
        carried = {
            name: fields[name] for name, kind in own_kinds.items() if kind not in ("null", NOT_CARRIED)
        }
        own = {"content_hash": text_fingerprint(item.text), "id_hash": id_hash(item.id), "fields": carried}
        found.append({**place, "num_tokens": len(ids) + 1, **own})
    all_tokens = np.concatenate([np.zeros(0, dtype=TOKEN_DTYPE), *tokens])
    num_documents = len(tokens) // 2
    return Part(
        PartInfo(num_documents, len(all_tokens), dict(counts), kinds, first_reason), found, all_tokens
    )


def write_part(path: Path, part: Part) -> PartInfo:
    """Write a part: temporary name, fsync, rename. Equal arguments give equal bytes."""
    rows = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in part.rows)
    body = part.tokens.astype(TOKEN_DTYPE, copy=False).data
    first = {"format": PART_FORMAT, **vars(part.info), "row_bytes": len(rows), "digest": _digest(rows, body)}
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(orjson.dumps(first, option=orjson.OPT_APPEND_NEWLINE))
        stream.write(rows)
        stream.write(body)
    return part.info


def read_part(path: Path) -> Part | None:
    """Read a part; None if it is missing, torn, changed or of another format."""
    try:
        data = path.read_bytes()
        end = data.index(b"\n") + 1
        first = orjson.loads(data[:end])
        if first.pop("format") != PART_FORMAT:
            return None
        middle, digest = end + first.pop("row_bytes"), first.pop("digest")
        rows, tokens = memoryview(data)[end:middle], memoryview(data)[middle:]
        if _digest(rows, tokens) != digest:
            return None
        lines = bytes(rows).split(b"\n")[:-1]
        return Part(
            PartInfo(**first), [orjson.loads(line) for line in lines], np.frombuffer(tokens, TOKEN_DTYPE)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_info(path: Path) -> PartInfo | None:
    """Read line 1 of a part after verifying the whole; None as `read_part`."""
    part = read_part(path)
    return None if part is None else part.info


def _digest(*blocks: bytes | memoryview) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _encoded(rows: Iterable[Row], tokenizer: Tokenizer | ChatTokenizer) -> Iterator[tuple[Row, np.ndarray]]:
    """Yield every row in order with its tokens; texts are encoded many at once."""
    batch, characters = list[Row](), 0
    for item in rows:
        size = len(item.text) if isinstance(item, Document) else 0
        if batch and characters + size > _BATCH_CHARACTERS:
            yield from _encoded_batch(batch, tokenizer)
            batch, characters = [], 0
        batch.append(item)
        characters += size
    yield from _encoded_batch(batch, tokenizer)


def _encoded_batch(
    batch: list[Row], tokenizer: Tokenizer | ChatTokenizer
) -> Iterator[tuple[Row, np.ndarray]]:
    documents = [item for item in batch if isinstance(item, Document)]
    try:
        found = iter(tokenizer.tokens([item.text for item in documents]))
    except BaseException as error:
        if not _is_tokenizer_fault(error):
            raise
        if len(batch) > 1:  # encode each text alone to find the faulty one
            for item in batch:
                yield from _encoded_batch([item], tokenizer)
            return
        reason = f"the tokenizer cannot take the text: {type(error).__name__}: {error}"
        yield _left_out(documents[0], "failed", reason), _NOTHING
        return
    for item in batch:
        if isinstance(item, Unreadable):
            yield item, _NOTHING
        elif len(ids := np.asarray(next(found), dtype=TOKEN_DTYPE)):
            yield item, ids
        else:
            yield _left_out(item, "too_short", "the text has no tokens"), _NOTHING


def _is_tokenizer_fault(error: BaseException) -> bool:
    """Return True if `error` is about the text.

    `tokenizers` raises Exception, TypeError and more. Where its Rust code panics, as in a word of some million
    characters, it raises a BaseException without a public name.
    """
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"


def _left_out(item: Document, status: str, reason: str) -> Unreadable:
    return Unreadable(item.id, item.source, item.file, item.row, status, reason, item.num_bytes)
