"""Packing straight from the output folder of `longlode score`: all its documents, with their scores as columns."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from longlode.core.errors import InputError
from longlode.core.kinds import RECORD_NAME
from longlode.core.records import read_json, read_record
from longlode.corpus import Document, Unit, Unreadable
from longlode.corpus.charsets import UTF8
from longlode.mining.engine.parts import PAIRS_FIELD, read_info
from longlode.mining.engine.scored import ScoredPart, scored_parts

_NOT_CARRIED = {"id", "source", "file", "row", "num_tokens", "num_bytes", "reason", PAIRS_FIELD.name}
Row = Document | Unreadable


@dataclass(frozen=True)
class UnitScores:
    """Place of the scores of a unit: rows `start` up to `stop` of a part; None: all its rows."""

    part: Path
    start: int = 0
    stop: int | None = None


def is_scores(folder: str | Path) -> bool:
    """Return True for an output folder of `longlode score`."""
    path = Path(folder) / RECORD_NAME
    if not path.is_file():
        return False
    record = read_json(path)
    return isinstance(record, dict) and record.get("kind") == "scores"


def scored_units(folder: Path) -> tuple[list[tuple[Unit, UnitScores]], dict[str, str]]:
    """Return the units of a finished scoring run, each with the place of its scores, and how its text was read.

    Raises: InputError when the run is not finished or its record or parts are damaged.
    """
    record = read_record(folder, "scores")
    again = "Run the same score command again; it does only what is missing."
    if not record.get("complete"):
        raise InputError(f"the scoring run in {folder} is not complete. {again}")
    parts = list(scored_parts(folder, record))
    try:
        settings = record["settings"]
        how = {"text_field": settings["text_field"], "encoding": settings.get("encoding", UTF8)}
    except (KeyError, TypeError) as error:
        raise InputError(
            f"the record of {folder} is damaged ({type(error).__name__}: {error}). {again}"
        ) from None
    unusable = [part.path.name for part in parts if read_info(part.path) is None]
    if unusable:
        raise InputError(
            f"{folder} lacks {len(unusable)} of its parts, or they are damaged, first {unusable[0]}. {again}"
        )
    return [pair for part in parts for pair in _units(part)], how


def _units(part: ScoredPart) -> Iterator[tuple[Unit, UnitScores]]:
    if len(part.units) == 1:
        yield part.units[0], UnitScores(part.path)
        return
    for unit, (start, stop) in zip(part.units, pairwise((0, *part.stops)), strict=True):
        yield unit, UnitScores(part.path, start, stop)


def with_scores(rows: Iterator[Row], where: UnitScores) -> Iterator[Row]:
    """Add the scores of a unit to the fields of its documents, in the place of fields of the same names.

    Raises: InputError for a document that was not scored there: the input has changed since.
    """
    table = _scores(where.part)
    if where.stop is not None:
        table = table.slice(where.start, where.stop - where.start)
    scores = {(row["file"], row["row"]): row for row in table.to_pylist()}
    for item in rows:
        found = scores.get((item.file, item.row))
        if found is None or found["id"] != item.id:
            raise InputError(
                f"row {item.row} of {item.file} is not what was scored any more: the input was moved or changed. "
                "Score it again, or put it back."
            )
        yield item if isinstance(item, Unreadable) else replace(item, metadata=item.metadata | _values(found))


@lru_cache(maxsize=1)  # the units of a part follow one another
def _scores(part: Path) -> pa.Table:
    # pq.read_table would also read the folder's name as columns.
    with pq.ParquetFile(part) as source:
        names = [name for name in source.schema_arrow.names if name not in _NOT_CARRIED]
        return _flat(source.read(columns=["file", "row", "id", *names]))


def _flat(table: pa.Table) -> pa.Table:
    """Leave out columns of lists and structs."""
    nested = [field.name for field in table.schema if pa.types.is_nested(field.type)]
    return table.drop_columns(nested)


def _values(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in row.items() if name not in ("file", "row", "id") and value is not None
    }
