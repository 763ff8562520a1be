"""Typed options of things that are picked by name."""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from longlode.core.errors import ConfigError

T = TypeVar("T")


def build(kind: type[T], options: Mapping[str, Any] | None, what: str) -> T:
    """Make a dataclass from plain values, each checked against the type of its field.

    Args: what: the thing in words, for messages: "the packer 'concat'".
    Raises: ConfigError for an option that the class does not have, one that is missing, or a value that it refuses.
    """
    given = dict(options or {})
    assert dataclasses.is_dataclass(kind), "options are the fields of a dataclass"
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := [option for option in given if option not in known]:
        close = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{what} has no option {unknown[0]!r}.{hint} Its options: {list_options(kind)}.")
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # of the class itself, which sees the options together
            raise ConfigError(f"{what}: {first['ctx']['error']}") from None
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{what}: {where} is {first['input']!r}: {first['msg']}.") from None


def list_options(kind: type) -> str:
    """The options of a dataclass with types and defaults, for messages: "far (int, default 4)"; "none" without any."""
    types = get_type_hints(kind)
    told = []
    for field in dataclasses.fields(kind):
        name = getattr(types[field.name], "__name__", str(types[field.name]))
        has_default = field.default is not dataclasses.MISSING
        told.append(f"{field.name} ({name}{f', default {field.default!r}' if has_default else ''})")
    return ", ".join(told) or "none"


def parse_options(texts: Sequence[str], flag: str) -> dict[str, Any]:
    """The options of a command line: KEY=VALUE each, values as `parse_value` takes them.

    Args: flag, for messages: "--scorer-option".
    Raises: ConfigError for what is no KEY=VALUE and for a key that is given twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals):
            raise ConfigError(f"{flag} got {text!r}; expected KEY=VALUE.")
        if key in found:
            raise ConfigError(f"{flag} gives {key!r} twice; give it once.")
        found[key] = parse_value(value)
    return found


def parse_value(text: str) -> Any:
    """A value of the command line: TOML, or as it is where that is none."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text
