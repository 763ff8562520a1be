"""Selection of a scores folder: kept documents with their beginnings, and dropped ones with reasons."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from longlode.core.kinds import SELECTION_FOLDER
from longlode.report.read import Found, Gathered
from longlode.report.text import as_number

Identity = tuple[str, int, str]
"""(file, row, id) of a document, -1 for no row."""

_DROPPED_NAME = "dropped.parquet"
_MAX_TEXT_BYTES = 128_000_000
_BEGINNING = 2000
"""Characters of a text that are kept for its excerpt."""


@dataclass(frozen=True)
class Decisions:
    """A selection read. name: its own. dropped: rows not kept, with reasons. documents: the file of the kept ones."""

    name: str
    dropped: Mapping[Identity, str]
    documents: Path

    def of(self, document: Identity) -> tuple[str, str]:
        """("kept" or "dropped", reason for dropping)."""
        why = self.dropped.get(document)
        return ("kept", "") if why is None else ("dropped", why)


def decisions(gathered: Gathered, scores: Found, documents: Sequence[Identity]) -> Decisions | None:
    """Read the first selection that was made from a scores folder.

    A selection belongs to this folder if its record says so and if the documents of the folder that it did not drop are
    as many as it kept, since folders are moved and scored again.
    """
    for found in gathered.of("selection"):
        path = found.folder / _DROPPED_NAME
        if not path.is_file() or not _is_of(found, scores):
            continue
        table = gathered.attempt(_dropped, path)
        if table is None:
            continue
        dropped = _reasons(table)
        if sum(one not in dropped for one in documents) == as_number(found.record.get("num_selected")):
            return Decisions(found.name, dropped, _documents_path(found))
    return None


def _is_of(selection: Found, scores: Found) -> bool:
    named = selection.record.get("scores")
    return isinstance(named, str) and Path(named).name == scores.folder.resolve().name


def _dropped(path: Path) -> pa.Table:
    present = set(pq.read_schema(path).names)
    wanted = [name for name in ("file", "row", "id", "kind", "why") if name in present]
    return pq.read_table(path, columns=wanted, partitioning=None)


def _reasons(table: pa.Table) -> dict[Identity, str]:
    columns = {
        name: table.column(name).to_pylist() if name in table.column_names else [None] * table.num_rows
        for name in ("file", "row", "id", "kind", "why")
    }
    found = {}
    for file, row, name, kind, why in zip(*columns.values(), strict=True):
        identity = (file or "", -1 if row is None else int(row), name or "")
        found[identity] = ": ".join(part for part in ((kind or "").replace("_", " "), why) if part)
    return found


def _documents_path(selection: Found) -> Path:
    """The file of the kept documents: FOLDER/NAME for a record in FOLDER/__selection__/NAME."""
    if selection.folder.parent.name == SELECTION_FOLDER:
        return selection.folder.parent.parent / selection.folder.name
    return selection.folder / Path(str(selection.record.get("out") or "")).name


def beginnings(gathered: Gathered, path: Path, wanted: set[str], text_field: str) -> dict[str, str]:
    """The first characters of kept documents, by id; reads no more than it needs and at most 128 MB of text.

    Args: wanted, ids. text_field: of the scores; kept documents keep their fields.
    """
    found: dict[str, str] = {}
    if path.is_file() and wanted:
        gathered.attempt(lambda one: _collect(one, wanted, text_field, found), path)
    return found


def _collect(path: Path, wanted: set[str], text_field: str, found: dict[str, str]) -> bool:
    num_bytes = 0
    fields = [
        name.strip() for name in text_field.split(",")
    ]  # the first that a record has, as where it was scored
    for row in _rows(path, fields):
        name, text = row.get("id"), next((row[field] for field in fields if row.get(field) is not None), None)
        if isinstance(text, str):
            num_bytes += len(text)
            if str(name) in wanted:
                found.setdefault(str(name), text[:_BEGINNING])
        if len(found) == len(wanted) or num_bytes > _MAX_TEXT_BYTES:
            break
    return True


def _rows(path: Path, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            columns = [name for name in ("id", *fields) if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=64, columns=columns):
                yield from batch.to_pylist()
        return
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with pa.input_stream(str(path), compression=compression) as stream:
        rest = b""
        while block := stream.read(1 << 20):
            *lines, rest = (rest + block).split(b"\n")
            yield from map(_row, lines)
        yield _row(rest)


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return row if isinstance(row, dict) else {}
