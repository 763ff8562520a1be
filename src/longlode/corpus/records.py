"""One record (a JSON line, a Parquet row) to one Document, or to the reason why not."""

import json
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from longlode.core.errors import ConfigError
from longlode.corpus.charsets import UTF8, check_encoding, decode, fault
from longlode.corpus.document import FAILED, TOO_SHORT, Document, Unreadable

_MAX_NAMES = 20
_SURROGATE = re.compile("[\ud800-\udfff]")
_INT64 = range(-(2**63), 2**64)
_MAX_DIGITS = 310


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading records and texts.

    text_field: the field or column that holds the text; or several, "text,content": the first that a record has.
    errors: "strict": bytes that are not UTF-8, and lone surrogates, make the row "failed"; "replace": each
      becomes U+FFFD.
    max_line_bytes: a longer line of a records file is "failed"; it is skipped without being held in memory.
    max_text_bytes: a larger whole-text file is "failed".
    encoding: of whole-text files and JSON lines; Parquet and Arrow files are UTF-8 by definition.
    json_text: a text field that holds a list or an object becomes its JSON.
    with_metadata: keep the other fields of a record.
    """

    text_field: str = "text"
    errors: str = "strict"
    max_line_bytes: int = 64 << 20
    max_text_bytes: int = 1 << 30
    encoding: str = UTF8
    json_text: bool = False
    with_metadata: bool = True
    text_fields: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Check the values. Raises: ConfigError."""
        object.__setattr__(self, "text_fields", split_fields(self.text_field))
        object.__setattr__(self, "encoding", check_encoding(self.encoding))
        if self.errors not in ("strict", "replace"):
            raise ConfigError(f"errors is {self.errors!r}; expected 'strict' or 'replace'.")
        if self.max_line_bytes < 1 or self.max_text_bytes < 1:
            raise ConfigError("max_line_bytes and max_text_bytes must be at least 1.")


class Place(NamedTuple):
    """Place of a row: the file's name, the row number, the source given by its file, its size in bytes."""

    file: str
    row: int
    source: str
    num_bytes: int

    def unreadable(self, status: str, reason: str, *, id: str = "") -> Unreadable:
        """Make the row that says why there is no document here."""
        name = id or f"{self.file}#{self.row}"
        return Unreadable(name, self.source, self.file, self.row, status, reason, self.num_bytes)


def split_fields(given: str) -> tuple[str, ...]:
    """List the names of a text field, in order: "text,content" is both, after a field of exactly that name."""
    parts = tuple(part.strip() for part in given.split(",") if part.strip())
    return (given,) if len(parts) < 2 else (given, *parts)


def main_field(given: str) -> str:
    """Return the field under which the text of every document is written, whichever of several its record had."""
    return split_fields(given)[:2][-1]


def parse_line(line: bytes, place: Place, options: ReadOptions) -> Document | Unreadable:
    """Parse one JSON line into a Document, or an Unreadable with the reason.

    NaN, Infinity and lone surrogates, which Python's `json` writes though JSON forbids them, are accepted.
    """
    if options.encoding != UTF8:
        recoded = _recode(line, options)
        if recoded is None:
            return place.unreadable(FAILED, fault(line, options.encoding))
        line = recoded
    try:
        return make_document(orjson.loads(line), place, options)
    except orjson.JSONDecodeError as error:
        wrong = str(error)
    text = decode(line, UTF8, options.errors)
    if text is None:
        return place.unreadable(FAILED, fault(line, UTF8))
    try:
        record = json.loads(text, parse_int=_integer)
        if isinstance(record, dict):
            record = _scrub(record, keep=options.text_fields)
    except (ValueError, RecursionError):
        return place.unreadable(FAILED, f"not valid JSON: {wrong}")
    return make_document(record, place, options)


def _recode(line: bytes, options: ReadOptions) -> bytes | None:
    """Convert a line of another encoding to UTF-8; None if it is not of that encoding."""
    text = decode(line, options.encoding, options.errors)
    return None if text is None else text.encode("utf-8", "surrogatepass")


def make_document(record: Any, place: Place, options: ReadOptions) -> Document | Unreadable:
    """Turn one parsed record into a Document, or an Unreadable with the reason."""
    if not isinstance(record, dict):
        return place.unreadable(FAILED, f"the record is {_type_name(record)}, expected an object with fields")
    given_id, given_source = record.get("id"), record.get("source")
    has_id = isinstance(given_id, str | int) and not isinstance(given_id, bool) and given_id != ""
    name = _clean(str(given_id)) if has_id else f"{place.file}#{place.row}"
    source = _clean(given_source) if isinstance(given_source, str) and given_source else place.source
    if source != place.source:
        place = place._replace(source=source)
    text_field = _text_field(record, options)
    if text_field is None:
        return place.unreadable(FAILED, _missing_field(options.text_field, list(record)), id=name)
    text = record[text_field]
    if options.json_text and isinstance(text, list | dict):
        text = orjson.dumps(_scrub(text)).decode()
    if not isinstance(text, str):
        reason = f"field {text_field!r} is {_type_name(text)}, expected a string"
        return place.unreadable(FAILED, reason, id=name)
    if not text:
        return place.unreadable(TOO_SHORT, "the text is empty", id=name)
    where = _lone_surrogate(text)
    if where is not None and options.errors == "strict":
        reason = f"lone surrogate U+{ord(text[where]):04X} at character {where} of the text"
        return place.unreadable(FAILED, reason, id=name)
    text = text if where is None else _clean(text)
    if not options.with_metadata:
        return Document(name, text, source, place.file, place.row)
    known = {text_field, "id" if has_id else "", "source" if source == given_source else ""}
    metadata = {key: value for key, value in record.items() if key not in known}
    return Document(name, text, source, place.file, place.row, metadata)


def _text_field(record: dict[str, Any], options: ReadOptions) -> str | None:
    """Return the first text field present; a null one only if no later one has a value."""
    if len(options.text_fields) == 1:
        [only] = options.text_fields
        return only if only in record else None
    there = [name for name in options.text_fields if name in record]
    return next((name for name in there if record[name] is not None), there[0] if there else None)


def _missing_field(field: str, names: list[str]) -> str:
    """Return the reason for a record without its text field, with the fields that it has."""
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
    """Parse a whole number, or keep its digits as text if very long: Python refuses to convert thousands of digits."""
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


def _scrub(value: Any, *, keep: tuple[str, ...] = ()) -> Any:
    """Make values of the lenient parser safe to write: no surrogates, no integers above 64 bits."""
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, list):
        return [_scrub(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): item if key in keep else _scrub(item) for key, item in value.items()}
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
