"""Writing of documents to token shards: the whole folder or nothing."""

import contextlib
import hashlib
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from longlode.core.errors import ConfigError, InputError
from longlode.core.fingerprints import file_sha256, text_fingerprint
from longlode.core.locks import write_lock
from longlode.core.outputs import claim_folder, full_path
from longlode.core.records import remove_leftovers, sync_folder, temporary_name, write_record
from longlode.corpus import Document, Tokenizer, Unreadable, id_hash
from longlode.packing.shards import DOCUMENT_COLUMNS, FORMAT, KIND, TOKENIZER_FOLDER

_BATCH_DOCUMENTS = 64
# A tokenizer's working memory is about a hundred times the text that it encodes at once.
_BATCH_CHARACTERS = 1 << 20
_LONG_CHARACTERS = 1 << 18
_TABLE_ROWS = 1 << 14
_MAX_UINT16 = 1 << 16
_MOVED_ASIDE = ".old-shards"
STATUSES = ("ok", "too_short", "skipped", "failed")

logger = logging.getLogger(__name__)


def pack(
    documents: Iterable[Document | Unreadable],
    tokenizer: Tokenizer,
    out: str | Path,
    *,
    length: int,
    shard_tokens: int = 1 << 28,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Tokenize documents into a folder of shards (layout: `shards.py`); a failure leaves nothing.

    Every input row counts once: as a document, or in `unreadable.jsonl` with its status and reason; a
    document that the tokenizer cannot encode is "failed", one without a token "too_short"; others are unaffected.

    Args:
      documents: rows, as `corpus.read` yields them. tokenizer: must name an eos token, which ends every document.
      out: a folder that does not exist or is empty.
      length: tokens of the rows to be cut later; at least that many tokens are required.
      shard_tokens: a token file is closed once it has this many; documents are never cut.
      overwrite: replace a folder of shards. progress: called with (documents, tokens) packed so far.
    Returns: num_documents, num_tokens, num_rows (of `length`), num_too_short, num_skipped, num_failed,
      num_files, dtype, fingerprint.
    Raises: InputError when out is in use or cannot be written, or when there are fewer than `length` tokens.
    """
    if length < 2 or shard_tokens < 1:
        raise ConfigError(f"length is {length} and shard_tokens {shard_tokens}; expected >= 2 and >= 1.")
    if tokenizer.eos_id is None:
        raise InputError("The tokenizer names no eos_token in tokenizer_config.json; each document needs it.")
    out = full_path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with write_lock(out.with_name(f".{out.name}.lock"), str(out)):
            _recover(out)
            claim_folder(out, KIND, overwrite=overwrite, make=False)
            return _write(documents, tokenizer, out, length, shard_tokens, progress)
    except OSError as error:
        what = error.filename if isinstance(error.filename, str) else out
        raise InputError(
            f"{out} cannot be written: {(error.strerror or str(error)).lower()} ({what}). Make room or choose another "
            "folder; nothing was changed."
        ) from None


def _write(
    documents: Iterable[Document | Unreadable],
    tokenizer: Tokenizer,
    out: Path,
    length: int,
    shard_tokens: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Write the shards beside `out`, then move them to `out`."""
    temporary = temporary_name(out)
    try:
        temporary.mkdir()
        writer = _Writer(temporary, tokenizer, shard_tokens)
        try:
            for tokens, item in _encoded(documents, tokenizer):
                writer.add(item, tokens)
                if progress is not None:
                    progress(writer.counts["ok"], writer.num_tokens)
            writer.close()
        finally:
            writer.abandon()
        if writer.num_tokens < length:
            raise InputError(_too_little(writer, length))
        summary = _finish(temporary, writer, tokenizer, length)
        _move(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return summary


class _Writer:
    """Writer of documents to token files and their tables, and of other rows to unreadable.jsonl."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, shard_tokens: int) -> None:
        self.folder = folder
        self.dtype = np.dtype("<u2" if tokenizer.vocab_size <= _MAX_UINT16 else "<u4")
        self.files: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.num_tokens = 0
        self.first_reason = ""
        self.hash = hashlib.blake2b(tokenizer.fingerprint.encode(), digest_size=8)
        self._eos = np.array([tokenizer.eos_id], dtype=self.dtype).tobytes()
        self._shard_tokens = shard_tokens
        self._tokens: BinaryIO | None = None
        self._table: pq.ParquetWriter | None = None
        self._rows: list[dict[str, Any]] = []
        self._unreadable = (folder / "unreadable.jsonl").open("wb")

    def add(self, item: Document | Unreadable, tokens: np.ndarray | list[int]) -> None:
        """Add one input row; tokens without the eos, which ends every document."""
        place = {"id": item.id, "source": item.source, "file": item.file, "row": item.row}
        if isinstance(item, Unreadable):
            self.counts[item.status] += 1
            self.first_reason = self.first_reason or f"{item.id}: {item.reason}"
            row = {**place, "status": item.status, "reason": item.reason}
            self._unreadable.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            return
        if self._tokens is None:
            self._open()
        assert self._tokens is not None
        self._tokens.write(np.asarray(tokens, dtype=self.dtype).data)
        self._tokens.write(self._eos)
        num_tokens = len(tokens) + 1
        content = text_fingerprint(item.text)
        self.hash.update(orjson.dumps([item.id, content, num_tokens]))
        row = {**place, "num_tokens": num_tokens, "content_hash": content, "id_hash": id_hash(item.id)}
        self._rows.append(row)
        self.counts["ok"] += 1
        self.num_tokens += num_tokens
        self.files[-1]["num_tokens"] += num_tokens
        self.files[-1]["num_documents"] += 1
        if len(self._rows) >= _TABLE_ROWS:
            self._flush()
        if self.files[-1]["num_tokens"] >= self._shard_tokens:
            self._close_file()

    def close(self) -> None:
        """Finish the files and sync them to disk."""
        self._close_file()
        _sync(self._unreadable)
        self._unreadable.close()

    def abandon(self) -> None:
        """Close files that are still open; the caller removes them with their folder."""
        for stream in (self._table, self._tokens, self._unreadable):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _open(self) -> None:
        number = len(self.files)
        names = {"tokens": f"tokens-{number:05d}.bin", "documents": f"documents-{number:05d}.parquet"}
        self.files.append({**names, "num_tokens": 0, "num_documents": 0})
        self._tokens = (self.folder / names["tokens"]).open("wb")
        self._table = pq.ParquetWriter(
            self.folder / names["documents"], DOCUMENT_COLUMNS, compression="zstd", write_page_checksum=True
        )

    def _flush(self) -> None:
        if self._table is not None and self._rows:
            self._table.write_table(pa.Table.from_pylist(self._rows, schema=DOCUMENT_COLUMNS))
            self._rows = []

    def _close_file(self) -> None:
        if self._tokens is None or self._table is None:
            return
        self._flush()
        self._table.close()
        _sync(self._tokens)
        self._tokens.close()
        self._tokens = self._table = None
        file = self.files[-1]
        with (self.folder / file["documents"]).open("rb") as stream:
            os.fsync(stream.fileno())
        file["sha256"] = file_sha256(self.folder / file["tokens"])
        file["documents_sha256"] = file_sha256(self.folder / file["documents"])


def _encoded(
    documents: Iterable[Document | Unreadable], tokenizer: Tokenizer
) -> Iterator[tuple[np.ndarray | list[int], Document | Unreadable]]:
    """Yield every row in order with its tokens; short texts are encoded many at once, a long one in pieces."""
    batch: list[Document | Unreadable] = []
    characters = 0
    for item in documents:
        size = len(item.text) if isinstance(item, Document) else 0
        if (
            size >= _LONG_CHARACTERS
            or characters + size > _BATCH_CHARACTERS
            or len(batch) >= _BATCH_DOCUMENTS
        ):
            yield from _encode_batch(batch, tokenizer)
            batch, characters = [], 0
        if isinstance(item, Document) and size >= _LONG_CHARACTERS:
            yield _encode_alone(item, tokenizer.encode_long)
        else:
            batch.append(item)
            characters += size
    yield from _encode_batch(batch, tokenizer)


def _encode_batch(
    batch: list[Document | Unreadable], tokenizer: Tokenizer
) -> Iterator[tuple[np.ndarray | list[int], Document | Unreadable]]:
    texts = [item.text for item in batch if isinstance(item, Document)]
    try:
        encoded: Iterator[list[int]] | None = iter(tokenizer.encode(texts))
    except BaseException as error:
        if not _is_tokenizer_fault(error):
            raise
        encoded = None  # encode each text alone to find the faulty one
    for item in batch:
        if isinstance(item, Unreadable):
            yield [], item
        elif encoded is not None:
            yield _judged(next(encoded), item)
        else:
            yield _encode_alone(item, lambda text: tokenizer.encode([text])[0])


def _encode_alone(
    item: Document, encode: Callable[[str], np.ndarray | list[int]]
) -> tuple[np.ndarray | list[int], Document | Unreadable]:
    try:
        return _judged(encode(item.text), item)
    except BaseException as error:
        if not _is_tokenizer_fault(error):
            raise
        reason = f"the tokenizer cannot take the text: {type(error).__name__}: {error}"
        return [], _left_out(item, "failed", reason)


def _judged(
    tokens: np.ndarray | list[int], item: Document
) -> tuple[np.ndarray | list[int], Document | Unreadable]:
    return (tokens, item) if len(tokens) else ([], _left_out(item, "too_short", "the text has no tokens"))


def _is_tokenizer_fault(error: BaseException) -> bool:
    """Return True if `error` is about the text.

    `tokenizers` raises Exception, TypeError and more. Where its Rust code panics, as in a word of some million
    characters, it raises a BaseException without a public name.
    """
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"


def _left_out(item: Document, status: str, reason: str) -> Unreadable:
    return Unreadable(item.id, item.source, item.file, item.row, status, reason, item.num_bytes)


def _finish(folder: Path, writer: _Writer, tokenizer: Tokenizer, length: int) -> dict[str, Any]:
    """Write the tokenizer, then the record; return the summary."""
    tokenizer.save(folder / TOKENIZER_FOLDER)
    summary = {
        "num_documents": writer.counts["ok"],
        "num_tokens": writer.num_tokens,
        "num_rows": writer.num_tokens // length,
        **{f"num_{status}": writer.counts[status] for status in STATUSES[1:]},
        "num_files": len(writer.files),
        "dtype": writer.dtype.name,
        "fingerprint": writer.hash.hexdigest(),
    }
    write_record(
        folder,
        KIND,
        format=FORMAT,
        **{**summary, "dtype": writer.dtype.str},
        length=length,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
        files=writer.files,
        tokenizer_files={
            path.relative_to(folder).as_posix(): file_sha256(path)
            for path in sorted((folder / TOKENIZER_FOLDER).iterdir())
        },
    )
    return summary


def _recover(out: Path) -> None:
    """Undo unfinished work of killed runs of `pack` beside `out`; the caller holds the lock, so no run is active."""
    moved_aside = sorted(path for path in out.parent.iterdir() if _is_moved_aside(path, out))
    for old in moved_aside:
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.replace(out)
            logger.warning(
                "A run that was to replace %s was killed; its earlier shards have been restored.", out
            )
    remove_leftovers(out.parent, out.name, sole_writer=True)


def _is_moved_aside(path: Path, out: Path) -> bool:
    return path.name.startswith(f".{out.name}.") and path.name.endswith(_MOVED_ASIDE) and path.is_dir()


def _move(temporary: Path, out: Path) -> None:
    old = temporary.with_suffix(_MOVED_ASIDE)
    if out.exists() and any(out.iterdir()):
        out.replace(old)
    temporary.replace(out)
    sync_folder(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _too_little(writer: _Writer, length: int) -> str:
    rest = [f"{writer.counts[status]:,} {status}" for status in STATUSES[1:] if writer.counts[status]]
    why = f" Rows without a document: {', '.join(rest)}; the first: {writer.first_reason}." if rest else ""
    return (
        f"{writer.counts['ok']:,} documents have {writer.num_tokens:,} tokens; one row needs {length:,}."
        f"{why} Pack more text, or ask for a shorter length."
    )


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())
