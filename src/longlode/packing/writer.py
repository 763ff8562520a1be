"""Writing of documents to token shards: the whole folder or nothing."""

import contextlib
import hashlib
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from longlode.core.errors import ConfigError, InputError
from longlode.core.fingerprints import file_sha256
from longlode.core.locks import write_lock
from longlode.core.outputs import claim_folder, full_path
from longlode.core.records import remove_leftovers, sync_folder, temporary_name, write_record
from longlode.corpus import Document, Tokenizer, Unreadable
from longlode.packing.chat import ChatTokenizer
from longlode.packing.chosen import DocumentTable, GroupChoice, choose, kept_rows
from longlode.packing.columns import common_kinds, document_table, table_schema
from longlode.packing.part_files import TOKEN_DTYPE, PartInfo, encode_rows, read_part, write_part
from longlode.packing.shards import ANSWERS, FORMAT, KIND, TOKENIZER_FOLDER

SHARD_TOKENS = 1 << 28
_PART_CHARACTERS = 8 << 20
_PART_ROWS = 1 << 14
_TABLE_ROWS = 1 << 14
_MOVED_ASIDE = ".old-shards"
STATUSES = ("ok", "too_short", "skipped", "failed")

AnyTokenizer = Tokenizer | ChatTokenizer
Progress = Callable[[int, int], None]

logger = logging.getLogger(__name__)


def pack(
    documents: Iterable[Document | Unreadable],
    tokenizer: AnyTokenizer,
    out: str | Path,
    *,
    length: int,
    shard_tokens: int = SHARD_TOKENS,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Tokenize documents into a folder of shards (layout: `shards.py`); a failure leaves nothing.

    Every input row counts once: as a document, or in `unreadable.jsonl` with its status and reason; a
    document that the tokenizer cannot encode is "failed", one without a token "too_short"; others are unaffected.
    Fields of documents that are numbers, booleans or short texts become columns of the shards.

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
    check_settings(tokenizer, length, shard_tokens)
    with claimed(full_path(out), overwrite) as folder, new_folder(folder) as temporary:
        parts = _write_parts(documents, tokenizer, temporary / "parts", progress)
        summary = assemble(parts, tokenizer, temporary, length, shard_tokens)
        shutil.rmtree(temporary / "parts")
        move(temporary, folder)
    return summary


def check_settings(tokenizer: AnyTokenizer, length: int, shard_tokens: int) -> None:
    """Check what the shards are made with. Raises: ConfigError, or InputError for a tokenizer without eos."""
    if length < 2 or shard_tokens < 1:
        raise ConfigError(f"length is {length} and shard_tokens {shard_tokens}; expected >= 2 and >= 1.")
    if tokenizer.eos_id is None:
        raise InputError("The tokenizer names no eos_token in tokenizer_config.json; each document needs it.")


@contextlib.contextmanager
def claimed(out: Path, overwrite: bool, unchanged: str = "nothing was changed") -> Iterator[Path]:
    """Lock `out` against other writers, after undoing what killed ones left, and check that it may be written.

    Args: unchanged: what a failed write leaves, for the message.
    Raises: InputError when it is in use, holds something else, or cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with write_lock(out.with_name(f".{out.name}.lock"), str(out)):
            _recover(out)
            claim_folder(out, KIND, overwrite=overwrite, make=False)
            yield out
    except OSError as error:
        what = error.filename if isinstance(error.filename, str) else out
        raise InputError(
            f"{out} cannot be written: {(error.strerror or str(error)).lower()} ({what}). Make room or choose another "
            f"folder; {unchanged}."
        ) from None


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Make a temporary folder beside `out`, and remove what is left of it afterwards."""
    temporary = temporary_name(out)
    try:
        temporary.mkdir()
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_parts(
    documents: Iterable[Document | Unreadable],
    tokenizer: AnyTokenizer,
    folder: Path,
    progress: Progress | None,
) -> list[Path]:
    """Tokenize documents into parts of some megabytes of text, so that memory is bounded."""
    folder.mkdir()
    paths: list[Path] = []
    num_documents = num_tokens = 0
    for rows in _stretches(documents):
        paths.append(folder / f"{len(paths):06d}.part")
        info = write_part(paths[-1], encode_rows(rows, tokenizer))
        num_documents, num_tokens = num_documents + info.num_documents, num_tokens + info.num_tokens
        if progress is not None:
            progress(num_documents, num_tokens)
    return paths


def _stretches(documents: Iterable[Document | Unreadable]) -> Iterator[list[Document | Unreadable]]:
    rows: list[Document | Unreadable] = []
    characters = 0
    for item in documents:
        size = len(item.text) if isinstance(item, Document) else 0
        if rows and (characters + size > _PART_CHARACTERS or len(rows) >= _PART_ROWS):
            yield rows
            rows, characters = [], 0
        rows.append(item)
        characters += size
    if rows:
        yield rows


def assemble(
    parts: Sequence[Path],
    tokenizer: AnyTokenizer,
    folder: Path,
    length: int,
    shard_tokens: int,
    infos: Sequence[PartInfo] | None = None,
    mix: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Put parts together to shards in `folder`, an existing one; return the summary of `pack`.

    The bytes depend on the rows of the parts and their order, not on how rows are divided into parts.
    Args: infos, of the parts, where they are known; mix, weights of groups that add up to 1, as of `chosen.choose`.
    Raises: InputError for too few tokens, a part that is not whole, or a mixture that names what there is not.
    """
    known = [_whole(path).info for path in parts] if infos is None else infos
    _check_size(known, length)
    schema, left_out = table_schema(common_kinds(info.kinds for info in known))
    kept, groups = (None, None) if mix is None else _choose(parts, schema, mix, length)
    writer = _Writer(folder, tokenizer, schema, shard_tokens)
    try:
        for path in parts:
            part, start = _whole(path), 0
            for row, is_kept in kept_rows(part.rows, kept):
                size = row.get("num_tokens", 0)
                if is_kept:
                    writer.add(row, part.tokens[start : start + size])
                start += size
        writer.close()
    finally:
        writer.abandon()
    return _finish(folder, writer, tokenizer, length, schema, left_out, groups)


def _choose(
    parts: Sequence[Path], schema: pa.Schema, mix: Mapping[str, float], length: int
) -> tuple[Iterator[bool], list[GroupChoice]]:
    documents = DocumentTable(schema, mix)
    for path in parts:
        documents.add(_whole(path).rows)
    kept, groups = choose(documents, mix)
    if (tokens := sum(group.kept_tokens for group in groups)) < length:
        scarce = min((group for group in groups if group.share > 0), key=lambda one: one.tokens / one.share)
        raise InputError(
            f"with these shares {tokens:,} tokens can be packed, and one row needs {length:,}: the group "
            f"{scarce.name!r} has {scarce.tokens:,} tokens and a share of {scarce.share:.3g}. Pack more of it, or give "
            "it a smaller share."
        )
    return iter(kept.tolist()), groups


def _whole(path: Path) -> Any:
    part = read_part(path)
    if part is None:
        raise InputError(f"{path} is missing or damaged since it was written. Run the same command again.")
    return part


def _check_size(infos: Sequence[PartInfo], length: int) -> None:
    num_tokens = sum(info.num_tokens for info in infos)
    if num_tokens >= length:
        return
    counts: Counter[str] = Counter()
    for info in infos:
        counts.update(info.counts)
    rest = [f"{counts[status]:,} {status}" for status in STATUSES[1:] if counts[status]]
    first = next((info.first_reason for info in infos if info.first_reason), "")
    why = f" Rows without a document: {', '.join(rest)}; the first: {first}." if rest else ""
    raise InputError(
        f"{sum(info.num_documents for info in infos):,} documents have {num_tokens:,} tokens; one row needs "
        f"{length:,}.{why} Pack more text, or ask for a shorter length."
    )


class _Writer:
    """Writer of documents to token files and their tables, and of other rows to unreadable.jsonl."""

    def __init__(self, folder: Path, tokenizer: AnyTokenizer, schema: pa.Schema, shard_tokens: int) -> None:
        self.folder = folder
        self.files: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.num_tokens = 0
        self.hash = hashlib.blake2b(tokenizer.fingerprint.encode(), digest_size=8)
        self._schema = schema
        self._shard_tokens = shard_tokens
        self._tokens: BinaryIO | None = None
        self._table: pq.ParquetWriter | None = None
        self._rows: list[dict[str, Any]] = []
        self._unreadable = (folder / "unreadable.jsonl").open("wb")

    def add(self, row: dict[str, Any], tokens: np.ndarray) -> None:
        """Add a row of a part, with its tokens, eos last."""
        if "status" in row:
            self.counts[row["status"]] += 1
            self._unreadable.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            return
        if self._tokens is None:
            self._open()
        assert self._tokens is not None
        self._tokens.write(tokens.data)
        self.hash.update(orjson.dumps([row["id"], row["content_hash"], row["num_tokens"]]))
        self._rows.append(row)
        self.counts["ok"] += 1
        self.num_tokens += len(tokens)
        self.files[-1]["num_tokens"] += len(tokens)
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
            self.folder / names["documents"], self._schema, compression="zstd", write_page_checksum=True
        )

    def _flush(self) -> None:
        if self._table is not None and self._rows:
            self._table.write_table(document_table(self._rows, self._schema))
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


def _finish(
    folder: Path,
    writer: _Writer,
    tokenizer: AnyTokenizer,
    length: int,
    schema: pa.Schema,
    left_out: list[str],
    groups: list[GroupChoice] | None,
) -> dict[str, Any]:
    """Write the tokenizer, then the record; return the summary."""
    tokenizer.save(folder / TOKENIZER_FOLDER)
    summary = {
        "num_documents": writer.counts["ok"],
        "num_tokens": writer.num_tokens,
        "num_rows": writer.num_tokens // length,
        **{f"num_{status}": writer.counts[status] for status in STATUSES[1:]},
        "num_files": len(writer.files),
        "dtype": TOKEN_DTYPE.name,
        "fingerprint": writer.hash.hexdigest(),
    }
    mixed: dict[str, Any] = {}
    if groups is not None:
        mixed = {"mix": [vars(group) for group in groups]}
        summary["num_left_out"] = sum(group.documents - group.kept_documents for group in groups)
    write_record(
        folder,
        KIND,
        format=FORMAT,
        **{**summary, "dtype": TOKEN_DTYPE.str},
        length=length,
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
        loss=ANSWERS if isinstance(tokenizer, ChatTokenizer) else "all",
        columns=schema.names,
        columns_left_out=left_out,
        files=writer.files,
        **mixed,
        tokenizer_files={
            path.relative_to(folder).as_posix(): file_sha256(path)
            for path in sorted((folder / TOKENIZER_FOLDER).iterdir())
        },
    )
    return {**summary, **mixed}


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


def move(temporary: Path, out: Path) -> None:
    """Put a finished folder in the place of `out`; a kill between its steps is undone by the next run."""
    old = temporary.with_suffix(_MOVED_ASIDE)
    if out.exists() and any(out.iterdir()):
        out.replace(old)
    temporary.replace(out)
    sync_folder(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())
