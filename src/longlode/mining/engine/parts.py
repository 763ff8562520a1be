"""Parts: the results of one unit of work in one Parquet file, complete or absent.

A part is named by the fingerprint of everything that determines it, and carries that fingerprint, its row count
and its cost in its metadata, and the hash of all its bytes. "Done" means: the file of that name exists and
verifies. There is no other state.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, kw_only=True)
class PartInfo:
    """Metadata of a part.

    fingerprint: its name. num_rows: one per input document. document_tokens: of the scored documents, whole.
    tokens_alone, tokens_given: read by the model, segments alone and targets after a source.

    The path of the input is not in it, so that the same input elsewhere gives the same bytes.
    """

    fingerprint: str
    num_rows: int
    document_tokens: int
    tokens_alone: int
    tokens_given: int


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
    about = orjson.dumps(info, option=orjson.OPT_SORT_KEYS)
    table = pa.Table.from_pylist(list(rows), schema=schema.with_metadata({_METADATA_KEY: about}))
    with atomic_path(path) as temporary:
        with pq.ParquetWriter(
            temporary, table.schema, compression="zstd", write_page_checksum=True
        ) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({"seal": (_SEAL + _NO_DIGEST).decode()})
        _seal(temporary)


def _seal(path: Path) -> None:
    """Write the hash of the file into its footer: checksums of Parquet's pages do not cover names and metadata."""
    data = path.read_bytes()
    place = data.rindex(_SEAL + _NO_DIGEST) + len(_SEAL)
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(hashlib.sha256(data).hexdigest().encode())


def _is_whole(data: bytes) -> bool:
    """Tell if every byte is as it was at `_seal`."""
    place = data.rfind(_SEAL) + len(_SEAL)
    if place < len(_SEAL):
        return False
    digest = hashlib.sha256(data[:place])
    digest.update(_NO_DIGEST)
    digest.update(memoryview(data)[place + len(_NO_DIGEST) :])
    return digest.hexdigest().encode() == data[place : place + len(_NO_DIGEST)]


def read_info(path: Path) -> PartInfo | None:
    """Metadata of the part at `path` after a full read; None when it is missing, torn, changed or no part."""
    try:
        data = path.read_bytes()
        if not _is_whole(data):
            return None
        about = pq.read_metadata(pa.BufferReader(data))
        info = PartInfo(**orjson.loads(about.metadata[_METADATA_KEY]))
    except (OSError, pa.ArrowException, KeyError, TypeError, orjson.JSONDecodeError):
        return None
    if info.fingerprint != path.stem or info.num_rows != about.num_rows:
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
