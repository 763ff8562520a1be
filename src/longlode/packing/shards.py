"""Token shards on disk, opened for reading.

FOLDER/record.json              kind "shards": tokenizer, counts, fingerprint, the files below with their SHA-256
FOLDER/tokens-00000.bin         token ids of whole documents, end to end, each ended by eos;
                                little-endian int32 (in format 2 uint16 or uint32); of chats, ~id where a token has
                                no loss
FOLDER/documents-00000.parquet  one row per document of that file, in order (`columns.DOCUMENT_COLUMNS`, then the
                                fields that documents carry, and their scores)
FOLDER/unreadable.jsonl         one row per input row that gave no document: id, source, file, row, status, reason
FOLDER/tokenizer/               the tokenizer that made the ids
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from longlode.core.errors import ConfigError, InputError
from longlode.core.fingerprints import file_sha256, fingerprint
from longlode.core.records import read_record
from longlode.packing.columns import DOCUMENT_COLUMNS, common_type

KIND = "shards"
FORMAT = 3
"""Format number, increased when the layout changes: 2 added checksums of document tables and tokenizer, 3 carried
columns and int32 tokens.
"""
_READABLE = (2, 3)
TOKENIZER_FOLDER = "tokenizer"
ANSWERS = "answers"
"""Value of the record's field `loss` for packed chats: tokens without a loss are on disk as their complement, ~id."""


@dataclass(frozen=True, eq=False)
class PackedDocument:
    """A document of the shards: tokens int64 `[T]`, eos last."""

    id: str
    source: str
    tokens: np.ndarray


@dataclass(frozen=True)
class ShardFile:
    """One token file and the table of its documents."""

    tokens: Path
    documents: Path
    num_tokens: int
    num_documents: int


class Shards:
    """Packed documents, numbered 0 to num_documents - 1 over all files of all folders.

    fingerprint: hash of the documents (ids and texts) and the tokenizer, not of their location or division into
    files. length: the row length they were packed for; rows of any other length can be made too.
    """

    def __init__(self, folders: Sequence[Path], records: Sequence[dict[str, Any]]) -> None:
        """Make them by `open_shards`, which checks the files."""
        first = records[0]
        self.folders = tuple(folders)
        self.tokenizer_folder = folders[0] / TOKENIZER_FOLDER
        self.tokenizer_fingerprint: str = first["tokenizer_fingerprint"]
        self.vocab_size: int = first["vocab_size"]
        self.eos_id: int = first["eos_id"]
        self.length: int = first["length"]
        self.has_loss_mask = any(record.get("loss") == ANSWERS for record in records)
        """True if some tokens are not to be learned; see `has_loss`."""
        names = [record["fingerprint"] for record in records]
        self.fingerprint: str = names[0] if len(names) == 1 else fingerprint(names)
        self.files = tuple(
            ShardFile(
                folder / file["tokens"], folder / file["documents"], file["num_tokens"], file["num_documents"]
            )
            for folder, record in zip(folders, records, strict=True)
            for file in record["files"]
        )
        self._dtypes = [np.dtype(record["dtype"]) for record in records for _ in record["files"]]
        self._first_documents = np.cumsum([0] + [file.num_documents for file in self.files])
        self._maps: dict[int, np.ndarray] = {}

    @property
    def num_documents(self) -> int:
        """Number of documents in all files."""
        return int(self._first_documents[-1])

    @property
    def num_tokens(self) -> int:
        """Number of tokens in all files, each document's eos included."""
        return sum(file.num_tokens for file in self.files)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, eos included; int64 `[num_documents]`.

        Raises: InputError when a table of documents does not agree with its token file.
        """
        lengths = self._column("num_tokens", np.int64)
        for file, own in zip(self.files, np.split(lengths, self._first_documents[1:-1]), strict=True):
            if int(own.sum()) != file.num_tokens or (own < 1).any():
                raise InputError(
                    f"{file.documents} is not what was packed: its documents have {int(own.sum()):,} tokens, expected "
                    f"{file.num_tokens:,}. Pack it again, or bring back a sound copy."
                )
        return lengths

    @cached_property
    def columns(self) -> dict[str, pa.DataType]:
        """Columns of the documents and their types: `DOCUMENT_COLUMNS` and every field that `pack` carried.

        A column whose types differ between files has the common type, text if there is none narrower.
        """
        found: dict[str, pa.DataType] = {}
        for file in self.files:
            with _opened(file) as source:
                for field in source.schema_arrow:
                    found[field.name] = common_type(found.get(field.name, pa.null()), field.type)
        return found

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column of all documents, null where a folder does not have it; `num_documents` values.

        Raises: ConfigError for a column that no folder has; InputError when a table of documents is damaged.
        """
        if name not in self.columns:
            raise ConfigError(f"the shards have no column {name!r}; they have {', '.join(self.columns)}.")
        kind = self.columns[name]
        chunks = []
        for file in self.files:
            with _opened(file) as source:
                is_there = name in source.schema_arrow.names
            column = _table(file, [name])[name] if is_there else pa.nulls(file.num_documents, kind)
            chunks.append(column.cast(kind))
        return pa.chunked_array([part for chunk in chunks for part in _parts(chunk)], kind)

    @cached_property
    def id_hashes(self) -> np.ndarray:
        """`corpus.id_hash` of each document's id; uint64 `[num_documents]`."""
        return self._column("id_hash", np.uint64)

    @cached_property
    def _starts(self) -> np.ndarray:
        """Index of each document's first token in its file; int64 `[num_documents]`."""
        ends = np.cumsum(self.lengths)
        starts = ends - self.lengths
        firsts = self._first_documents[:-1]
        inside: np.ndarray = starts - np.repeat(starts[firsts], np.diff(self._first_documents))
        return inside

    def has_loss(self, document: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return which tokens start <= t < stop of a document have a loss, bool `[T]`: all, but in packed chats."""
        raw = self._raw(document, start, stop)[1]
        return raw >= 0 if self.has_loss_mask else np.ones(len(raw), dtype=bool)

    def tokens(self, document: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return tokens start <= t < stop of a document (None: to its end), memory-mapped, in the dtype on disk.

        Raises: InputError for a token id beyond the vocabulary, in a file damaged after it was packed.
        """
        file, found = self._raw(document, start, stop)
        if self.has_loss_mask:
            found = np.where(found < 0, ~found, found)
        if found.size and not 0 <= int(found.min()) <= int(found.max()) < self.vocab_size:
            wrong = int(found.min()) if found.min() < 0 else int(found.max())
            raise InputError(
                f"{self.files[file].tokens} holds the token id {wrong:,}; expected ids from 0 to below "
                f"{self.vocab_size:,}. It is not what was packed: pack it again, or bring back a sound copy."
            )
        return found

    def _raw(self, document: int, start: int, stop: int | None) -> tuple[int, np.ndarray]:
        """Return the number of a document's file, and tokens as they are on disk."""
        file = int(np.searchsorted(self._first_documents, document, side="right")) - 1
        first = int(self._starts[document])
        length = int(self.lengths[document])
        return file, self._map(file)[first + start : first + (length if stop is None else min(stop, length))]

    def split(self, name: str, heldout_fraction: float) -> np.ndarray:
        """Return the documents of "train" or "heldout", ascending; int64 `[n]`. Rule: `corpus.in_heldout`.

        Raises: ConfigError for another name, a fraction outside [0, 1), or "heldout" with nothing held out.
        """
        if name not in ("train", "heldout"):
            raise ConfigError(f"split is {name!r}; expected 'train' or 'heldout'.")
        if not 0 <= heldout_fraction < 1:
            raise ConfigError(f"heldout_fraction is {heldout_fraction}; expected 0 <= fraction < 1.")
        if name == "heldout" and heldout_fraction == 0:
            raise ConfigError("split 'heldout' was asked for with heldout_fraction 0; expected more than 0.")
        if heldout_fraction == 0:
            return np.arange(self.num_documents)
        held = self.id_hashes.astype(np.float64) / 2.0**64 < heldout_fraction
        return np.flatnonzero(held if name == "heldout" else ~held)

    def _map(self, file: int) -> np.ndarray:
        if file not in self._maps:
            self._maps[file] = np.memmap(self.files[file].tokens, dtype=self._dtypes[file], mode="r")
        return self._maps[file]

    def _column(self, name: str, dtype: type) -> np.ndarray:
        columns = [_table(file, [name])[name].to_numpy() for file in self.files]
        return np.concatenate(columns).astype(dtype)


def open_shards(folders: str | Path | Sequence[str | Path], *, verify: bool = False) -> Shards:
    """Open one folder of shards, or several as one; several must come from one tokenizer.

    Args: verify: also read every file and compare its SHA-256 with the record's.
    Raises: InputError when a folder holds no shards, a file is missing, short or (with verify) changed, or
      the tokenizers differ.
    """
    listed = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    if not listed:
        raise InputError("No folder of shards was given; expected one that `longlode pack` wrote.")
    records = [read_record(folder, KIND) for folder in listed]
    try:
        _check(listed, records, verify)
        return Shards(listed, records)
    except (KeyError, TypeError, ValueError) as error:
        where = ", ".join(map(str, listed))
        raise InputError(
            f"the record of {where} is damaged ({type(error).__name__}: {error}). Pack it again, or bring back a sound "
            "copy."
        ) from None


def _check(folders: Sequence[Path], records: Sequence[dict[str, Any]], verify: bool) -> None:
    for folder, record in zip(folders, records, strict=True):
        if record.get("format") not in _READABLE:
            found = record.get("format")
            raise InputError(f"{folder} has shard format {found}, expected {FORMAT}; pack it again.")
        if record["tokenizer_fingerprint"] != records[0]["tokenizer_fingerprint"]:
            raise InputError(
                f"{folder} and {folders[0]} were packed with different tokenizers; expected one."
            )
        for file in record["files"]:
            _check_file(folder, file, np.dtype(record["dtype"]).itemsize)
        if verify:
            _check_sums(folder, record)


def _check_file(folder: Path, file: dict[str, Any], token_bytes: int) -> None:
    path = folder / file["tokens"]
    num_bytes = file["num_tokens"] * token_bytes
    if not path.is_file() or not (folder / file["documents"]).is_file():
        raise InputError(f"{folder} lacks {file['tokens']} or {file['documents']}; pack it again.")
    if path.stat().st_size != num_bytes:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes, expected {num_bytes:,}; pack it again.")


def _check_sums(folder: Path, record: dict[str, Any]) -> None:
    """Compare every file that training reads, or copies beside the model, with its SHA-256 in the record."""
    sums: dict[str, str] = dict(record["tokenizer_files"])
    for file in record["files"]:
        sums |= {file["tokens"]: file["sha256"], file["documents"]: file["documents_sha256"]}
    for name, expected in sums.items():
        path = folder / name
        found = file_sha256(path) if path.is_file() else "missing"
        if found != expected:
            raise InputError(
                f"{path} is not what was packed: its SHA-256 is {found[:16]}..., expected {expected[:16]}.... "
                "Pack it again, or bring back a sound copy."
            )


def _parts(column: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]


@contextmanager
def _opened(file: ShardFile) -> Iterator[pq.ParquetFile]:
    """Open a table of documents. Raises: InputError when it is damaged."""
    try:
        # pq.read_table would also read the folder's name as columns.
        with pq.ParquetFile(file.documents, page_checksum_verification=True) as source:
            yield source
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{file.documents} cannot be read: {error}. Pack it again, or bring back a sound copy."
        ) from None


def _table(file: ShardFile, columns: list[str]) -> pa.Table:
    """Read columns of a table of documents. Raises: InputError when it is damaged."""
    with _opened(file) as source:
        table = source.read(columns=columns).select(columns)
        own = [DOCUMENT_COLUMNS.field(name) for name in columns if name in DOCUMENT_COLUMNS.names]
        others = [table.schema.field(name) for name in columns if name not in DOCUMENT_COLUMNS.names]
        table = table.cast(pa.schema(sorted([*own, *others], key=lambda field: columns.index(field.name))))
        table.validate(full=True)
    if len(table) != file.num_documents:
        raise InputError(
            f"{file.documents} is not what was packed: it has {len(table):,} documents, expected "
            f"{file.num_documents:,}. Pack it again, or bring back a sound copy."
        )
    return table


def heldout_documents(shards: Shards, fraction: float) -> Iterator[PackedDocument]:
    """Yield the documents that `batches(..., heldout_fraction=fraction)` keeps out of training, in order.

    The rule: the first 8 bytes, big-endian, of the BLAKE2b hash of the id, divided by 2**64, are below
    `fraction`.
    """
    wanted = shards.split("heldout", fraction)
    first = 0
    for file in shards.files:
        here = wanted[(wanted >= first) & (wanted < first + file.num_documents)]
        if len(here):
            table = _table(file, ["id", "source"]).take(here - first)
            for document, row in zip(here, table.to_pylist(), strict=True):
                tokens = shards.tokens(int(document)).astype(np.int64)
                yield PackedDocument(row["id"], row["source"], tokens)
        first += file.num_documents
