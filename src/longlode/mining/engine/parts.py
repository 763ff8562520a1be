"""Parts: the results of one unit of work, or of several, in one Parquet file, complete or absent.

A part is named by the fingerprint of everything that determines it, and carries that fingerprint, its row count
and its cost in its metadata, and the hash of all its bytes. "Done" means: the file of that name exists and
verifies. There is no other state.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from longlode.core.records import atomic_path
from longlode.mining.extras import ExtraColumn, extra_fields

PARTS_FOLDER = "parts"
PART_FORMAT = 4
"""Part of every part's name: raise it when columns change."""

SCORE_COLUMNS = (
    "score",
    "strength_mean",
    "strength_max_mean",
    "gain_nats",
    "specificity_mean",
    "repetition",
    "gzip_ratio",
)
"""The float columns, null where there is no value."""

COLUMNS = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("source", pa.string()),
        pa.field("file", pa.string()),
        pa.field("row", pa.int64()),
        *(pa.field(name, pa.int64()) for name in ("num_bytes", "num_tokens", "num_segments", "num_pairs")),
        *(pa.field(name, pa.float64()) for name in SCORE_COLUMNS),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("score_se", pa.float64()),
    ]
)
"""The columns of a part, in order. num_tokens are those of the reader, or of 4 bytes each where
none was read; num_segments counts the whole segments of the document, read or not.
score_se is the last, so that the columns before it stay where readers of older parts expect them; the scorer's
extra columns come after it, pairs last.
"""

PAIRS_FIELD = pa.field(
    "pairs",
    pa.list_(
        pa.struct(
            [
                pa.field("i", pa.int32()),
                pa.field("j", pa.int32()),
                pa.field("nll_alone", pa.float32()),
                pa.field("nll_given", pa.float32()),
            ]
        )
    ),
)
"""With keep_pairs: places i > j in the document, mean nats per token of s_i alone and after s_j."""
PAIR_FIELDS = [field.name for field in PAIRS_FIELD.type.value_type]

_METADATA_KEY = b"longlode"
_SEAL = b"longlode-part-sha256:"
"""In the footer, followed by 64 hex digits: SHA-256 of the file with these digits written as 0."""
_NO_DIGEST = b"0" * 64
_TAIL_BYTES = 64 << 10
_BLOCK_BYTES = 1 << 20
_UNREADABLE = (OSError, pa.ArrowException, KeyError, TypeError, orjson.JSONDecodeError)


@dataclass(frozen=True, kw_only=True)
class PartInfo:
    """Metadata of a part.

    fingerprint: its name. num_rows: one per input document. document_tokens: of the scored documents, whole.
    tokens_alone, tokens_given: read by the model, segments alone and targets after a source. statuses: rows by status.
    units: of a merged part those of its units, in the order of their rows.

    The path of the input is not in it, so that the same input elsewhere gives the same bytes.
    """

    fingerprint: str
    num_rows: int
    document_tokens: int
    tokens_alone: int
    tokens_given: int
    statuses: dict[str, int] = field(default_factory=dict)
    units: tuple["PartInfo", ...] = ()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "PartInfo":
        """Make the one that was written as JSON."""
        return cls(**{**value, "units": tuple(cls.from_json(one) for one in value["units"])})

    @classmethod
    def merged(cls, fingerprint: str, units: Sequence["PartInfo"]) -> "PartInfo":
        """That of a part with the rows of several units."""
        statuses = sum((Counter(unit.statuses) for unit in units), Counter())
        return cls(
            fingerprint=fingerprint,
            num_rows=sum(unit.num_rows for unit in units),
            document_tokens=sum(unit.document_tokens for unit in units),
            tokens_alone=sum(unit.tokens_alone for unit in units),
            tokens_given=sum(unit.tokens_given for unit in units),
            statuses=dict(sorted(statuses.items())),
            units=tuple(units),
        )


def part_path(out: Path, fingerprint: str) -> Path:
    """Path of the part with that fingerprint in the output folder."""
    return out / PARTS_FOLDER / f"{fingerprint}.parquet"


def write_part(
    path: Path,
    rows: Sequence[dict[str, Any]],
    info: PartInfo,
    *,
    keep_pairs: bool,
    extras: Sequence[ExtraColumn] = (),
) -> None:
    """Write a part: temporary name, fsync, rename. Equal arguments give equal bytes (same pyarrow).

    Args: extras, the scorer's own columns.
    """
    schema = pa.schema([*COLUMNS, *extra_fields(extras), *([PAIRS_FIELD] if keep_pairs else [])])
    _write(path, schema, [pa.Table.from_pylist(list(rows), schema=schema)], info)


def merge_parts(path: Path, parts: Sequence[Path], infos: Sequence[PartInfo]) -> None:
    """Write the rows of several parts, in order, as one part; a part of them is in memory at once.

    Raises: OSError, pa.ArrowException when a part has gone, or the disk fails.
    """
    schema = pq.read_schema(parts[0]).remove_metadata()
    tables = (pq.read_table(part, partitioning=None).replace_schema_metadata() for part in parts)
    _write(path, schema, tables, PartInfo.merged(path.stem, infos))


def copy_rows(merged: Path, path: Path) -> PartInfo | None:
    """Write the rows of the unit that `path` names, from a merged part, as a part of its own.

    Returns: its metadata; None if the merged part does not have it.
    """
    start = 0
    for unit in read_units(merged):
        if unit.fingerprint == path.stem:
            table = pq.read_table(merged, partitioning=None).replace_schema_metadata()
            _write(path, table.schema, [table.slice(start, unit.num_rows)], unit)
            return unit
        start += unit.num_rows
    return None


def _write(path: Path, schema: pa.Schema, tables: Iterable[pa.Table], info: PartInfo) -> None:
    about = orjson.dumps(info, option=orjson.OPT_SORT_KEYS)
    schema = schema.with_metadata({_METADATA_KEY: about})
    with atomic_path(path) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer:
            for table in tables:
                writer.write_table(table.cast(schema))
            writer.add_key_value_metadata({"seal": (_SEAL + _NO_DIGEST).decode()})
        _seal(temporary)


def _seal(path: Path) -> None:
    """Write the hash of the file into its footer: checksums of Parquet's pages do not cover names and metadata."""
    with path.open("r+b") as stream:
        place = _digest_place(stream)
        assert place is not None, "the placeholder was just written"
        digest = _digest(stream, place)
        stream.seek(place)
        stream.write(digest)


def _digest_place(stream: BinaryIO) -> int | None:
    """Find the place of the digest in the footer; None if there is none."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - _TAIL_BYTES))
    tail = stream.read()
    if tail[-4:] != b"PAR1":
        return None
    footer_size = min(size, int.from_bytes(tail[-8:-4], "little") + 8)
    if footer_size > len(tail):
        stream.seek(size - footer_size)
        tail = stream.read()
    place = tail.rfind(_SEAL)
    return None if place < 0 else size - len(tail) + place + len(_SEAL)


def _digest(stream: BinaryIO, place: int) -> bytes:
    """Hash a file with the digest at `place` written as 0, block by block."""
    hasher = hashlib.sha256()
    stream.seek(0)
    left = place
    while left and (block := stream.read(min(left, _BLOCK_BYTES))):
        hasher.update(block)
        left -= len(block)
    hasher.update(_NO_DIGEST)
    stream.seek(place + len(_NO_DIGEST))
    while block := stream.read(_BLOCK_BYTES):
        hasher.update(block)
    return hasher.hexdigest().encode()


def _is_whole(path: Path) -> bool:
    """Return True if every byte is as it was at `_seal`."""
    with path.open("rb") as stream:
        place = _digest_place(stream)
        if place is None:
            return False
        digest = _digest(stream, place)
        stream.seek(place)
        return stream.read(len(digest)) == digest


def read_units(path: Path) -> tuple[PartInfo, ...]:
    """Metadata of the units of a merged part, not verified; none when it is missing, unreadable or of one unit."""
    info = read_summary(path)
    return () if info is None else info.units


def read_summary(path: Path) -> PartInfo | None:
    """Metadata of the part at `path` from its footer alone, not verified; None when it is missing or unreadable."""
    try:
        return _read_metadata(path)[0]
    except _UNREADABLE:
        return None


def _read_metadata(path: Path) -> tuple[PartInfo, int]:
    about = pq.read_metadata(path)
    return PartInfo.from_json(orjson.loads(about.metadata[_METADATA_KEY])), about.num_rows


def read_info(path: Path) -> PartInfo | None:
    """Metadata of the part at `path` after a full read; None when it is missing, torn, changed or no part."""
    try:
        if not _is_whole(path):
            return None
        info, num_rows = _read_metadata(path)
    except _UNREADABLE:
        return None
    if info.fingerprint != path.stem or info.num_rows != num_rows:
        return None
    return info


def read_pairs(path: Path) -> list[np.ndarray]:
    """The pairs of each row of a part that was written with `keep_pairs`, none for a row that was not scored.

    Returns: arrays `[P]` with the fields PAIR_FIELDS.
    """
    column = pq.read_table(path, columns=["pairs"], partitioning=None).column("pairs").combine_chunks()
    ends = np.cumsum(pc.fill_null(pc.list_value_length(column), 0).to_numpy())
    fields = column.flatten()
    columns = [fields.field(name).to_numpy() for name in PAIR_FIELDS]
    pairs = np.empty(
        len(fields), dtype=[(name, c.dtype) for name, c in zip(PAIR_FIELDS, columns, strict=True)]
    )
    for name, values in zip(PAIR_FIELDS, columns, strict=True):
        pairs[name] = values
    return np.split(pairs, ends[:-1]) if len(ends) else []
