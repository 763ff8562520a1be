"""One record (a JSON line, a Parquet row) to one Document, or to the reason why not."""

import json
import re
from dataclasses import dataclass
from typing import Any

import orjson

from longlode.core.errors import ConfigError
from longlode.corpus.document import FAILED, TOO_SHORT, Document, Unreadable

_MAX_NAMES = 20
_SURROGATE = re.compile("[\ud800-\udfff]")
_INT64 = range(-(2**63), 2**64)
_MAX_DIGITS = 310


@dataclass(frozen=True)
class ReadOptions:
    """How to read records and texts.

    text_field: the field or column that holds the text.
    errors: "strict": bytes that are not UTF-8, and lone surrogates, make the row "failed"; "replace": each
      becomes U+FFFD.
    max_line_bytes: a longer line of a records file is "failed"; it is read through without being held.
    max_text_bytes: a larger whole-text file is "failed".
    """

    text_field: str = "text"
    errors: str = "strict"
    max_line_bytes: int = 64 << 20
    max_text_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if self.errors not in ("strict", "replace"):
            raise ConfigError(f"errors is {self.errors!r}; expected 'strict' or 'replace'.")
        if self.max_line_bytes < 1 or self.max_text_bytes < 1:
            raise ConfigError("max_line_bytes and max_text_bytes must be at least 1.")


@dataclass(frozen=True)
class Place:
    """Where a row stands: the file's name, the row, the source its file gives it, and its size in bytes."""

    file: str
    row: int
    source: str
    num_bytes: int

    def unreadable(self, status: str, reason: str, *, id: str = "") -> Unreadable:
        """The row that says why there is no document here."""
        name = id or f"{self.file}#{self.row}"
        return Unreadable(name, self.source, self.file, self.row, status, reason, self.num_bytes)


def decode_utf8(data: bytes | bytearray, errors: str) -> str | None:
    """Decode, or return None for bytes that are not UTF-8 under "strict" (`utf8_fault` then says where)."""
    try:
        return data.decode("utf-8", errors)
    except UnicodeDecodeError:
        return None


def utf8_fault(data: bytes | bytearray) -> str:
    """Where `data` stops being UTF-8, in words."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start}"
    return ""


def parse_line(line: bytes, place: Place, options: ReadOptions) -> Document | Unreadable:
    """Turn one JSON line into its row.

    What Python's own `json` writes but strict JSON forbids (NaN, Infinity, lone surrogates) is read too.
    """
    try:
        return make_document(orjson.loads(line), place, options)
    except orjson.JSONDecodeError as error:
        fault = str(error)
    text = decode_utf8(line, options.errors)
    if text is None:
        return place.unreadable(FAILED, utf8_fault(line))
    try:
        record = json.loads(text, parse_int=_integer)
        if isinstance(record, dict):
            record = _scrub(record, keep=options.text_field)
    except (ValueError, RecursionError):
        return place.unreadable(FAILED, f"not valid JSON: {fault}")
    return make_document(record, place, options)


def make_document(record: Any, place: Place, options: ReadOptions) -> Document | Unreadable:
    """Turn one parsed record into its row."""
    if not isinstance(record, dict):
        return place.unreadable(FAILED, f"the record is {_type_name(record)}, expected an object with fields")
    given_id, given_source = record.get("id"), record.get("source")
    has_id = isinstance(given_id, str | int) and not isinstance(given_id, bool) and given_id != ""
    name = _clean(str(given_id)) if has_id else f"{place.file}#{place.row}"
    source = _clean(given_source) if isinstance(given_source, str) and given_source else place.source
    place = Place(place.file, place.row, source, place.num_bytes)
    if options.text_field not in record:
        return place.unreadable(FAILED, missing_field(options.text_field, list(record)), id=name)
    text = record[options.text_field]
    if not isinstance(text, str):
        reason = f"field {options.text_field!r} is {_type_name(text)}, expected a string"
        return place.unreadable(FAILED, reason, id=name)
    if not text:
        return place.unreadable(TOO_SHORT, "the text is empty", id=name)
    where = _lone_surrogate(text)
    if where is not None and options.errors == "strict":
        reason = f"lone surrogate U+{ord(text[where]):04X} at character {where} of the text"
        return place.unreadable(FAILED, reason, id=name)
    text = text if where is None else _clean(text)
    known = {options.text_field, "id" if has_id else "", "source" if source == given_source else ""}
    metadata = {key: value for key, value in record.items() if key not in known}
    return Document(name, text, source, place.file, place.row, metadata)


def missing_field(field: str, names: list[str]) -> str:
    """The reason for a record without its text field: it lists the fields there are."""
    shown = ", ".join(repr(name[:80]) for name in names[:_MAX_NAMES]) or "none"
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"no field {field!r}; the record has: {shown}{more}"


def _lone_surrogate(text: str) -> int | None:
    if text.isascii():
        return None
    try:
        text.encode("utf-8")  # ten times as fast as a search for them
    except UnicodeEncodeError as error:
        return error.start
    return None


def _clean(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)


def _integer(digits: str) -> int | str:
    """A whole number, or its digits where `_scrub` would keep those: Python refuses to convert some thousands."""
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


def _scrub(value: Any, *, keep: str = "") -> Any:
    """Make what the lenient parser let through safe to write: no surrogates, no integers above 64 bits."""
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, list):
        return [_scrub(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): item if keep and key == keep else _scrub(item) for key, item in value.items()}
    if isinstance(value, int) and value not in _INT64:
        return float(value) if abs(value) < 10**308 else str(value)
    return value


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
