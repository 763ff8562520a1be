"""Columns that documents carry into the shards: their own fields and, from a scores folder, their scores."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
import pyarrow as pa

DOCUMENT_COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("num_tokens", pa.int64()),  # eos included
        ("content_hash", pa.string()),  # core.fingerprints.text_fingerprint of the text
        ("id_hash", pa.uint64()),  # corpus.id_hash of the id, for the held-out split
    ]
)
"""The columns that every document has."""

MAX_TEXT_BYTES = 256
"""A field with a longer text is not carried: it is content, not a property of the document."""
MAX_COLUMNS = 200
NOT_CARRIED = "not carried"
_PREFIX = "input."
_KINDS = {bool: "bool", int: "int64", float: "float64", str: "string", type(None): "null"}
_TYPES = {
    "null": pa.null(),
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
}
_INT64 = range(-(2**63), 2**63)


def carried_name(field: str) -> str:
    """Name of the column of a field: its own, or `input.NAME` where `DOCUMENT_COLUMNS` has one of that name."""
    return _PREFIX + field if field in DOCUMENT_COLUMNS.names else field


def kind_of(value: Any) -> str:
    """Name the type of a value in a column: null, bool, int64, float64, string; or `NOT_CARRIED`, as lists are."""
    kind = _KINDS.get(type(value), NOT_CARRIED)
    if kind == "string" and len(value.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        return NOT_CARRIED
    if kind == "int64" and value not in _INT64:
        return "string"
    return kind


def common_kind(one: str, other: str) -> str:
    """Return the narrowest kind that holds values of both; `NOT_CARRIED` if either is."""
    if NOT_CARRIED in (one, other):
        return NOT_CARRIED
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    return "float64" if {one, other} == {"int64", "float64"} else "string"


def common_kinds(all_kinds: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Combine the kinds of the columns of several tables; a column that a table lacks is null there."""
    found: dict[str, str] = {}
    for kinds in all_kinds:
        for name, kind in kinds.items():
            found[name] = common_kind(found.get(name, "null"), kind)
    return found


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return the Arrow type of the common kind of two Arrow types; a type of no kind counts as text."""
    kinds = {kind: name for name, kind in _TYPES.items()}
    if one == other:
        return one
    return _TYPES[common_kind(kinds.get(one, "string"), kinds.get(other, "string"))]


def table_schema(kinds: Mapping[str, str]) -> tuple[pa.Schema, list[str]]:
    """Return the schema of document tables with these columns, by name, and the names that are not carried.

    A column without any value is left out, and so are those beyond the first `MAX_COLUMNS`.
    """
    usable = [name for name in sorted(kinds) if kinds[name] not in ("null", NOT_CARRIED)]
    left_out = [name for name in sorted(kinds) if kinds[name] == NOT_CARRIED] + usable[MAX_COLUMNS:]
    fields = [pa.field(name, _TYPES[kinds[name]]) for name in usable[:MAX_COLUMNS]]
    return pa.schema([*DOCUMENT_COLUMNS, *fields]), left_out


def document_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Make a table of documents. Args: rows, the fields of `DOCUMENT_COLUMNS` and `fields`, the carried values."""
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in DOCUMENT_COLUMNS]
    for field in list(schema)[len(columns) :]:
        values = [_converted(row["fields"].get(field.name), field.type) for row in rows]
        columns.append(pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _converted(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_string(kind) and not isinstance(value, str):
        return (
            str(value)
            if isinstance(value, int) and not isinstance(value, bool)
            else orjson.dumps(value).decode()
        )
    return float(value) if pa.types.is_floating(kind) else value
