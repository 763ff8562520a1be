"""Typed options of scorers, packers and other components chosen by name."""

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

    Args: what: name of the component, for messages: "the packer 'concat'".
    Raises: ConfigError for an unknown option, a missing one, or a value that the class refuses.
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
        if first["type"] == "value_error":  # raised by the class itself, which checks the options together
            raise ConfigError(f"{what}: {first['ctx']['error']}") from None
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{what}: {where} is {first['input']!r}: {first['msg']}.") from None


def list_options(kind: type) -> str:
    """List the options of a dataclass with types and defaults, for messages: "far (int, default 4)", or "none"."""
    types = get_type_hints(kind)
    listed = []
    for field in dataclasses.fields(kind):
        name = getattr(types[field.name], "__name__", str(types[field.name]))
        has_default = field.default is not dataclasses.MISSING
        listed.append(f"{field.name} ({name}{f', default {field.default!r}' if has_default else ''})")
    return ", ".join(listed) or "none"


def parse_options(texts: Sequence[str], flag: str) -> dict[str, Any]:
    """Parse options of a command line, KEY=VALUE each; values are read by `parse_value`.

    Args: flag, for messages: "--scorer-option".
    Raises: ConfigError for text that is not KEY=VALUE and for a key that is given twice.
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
    """Parse a value of the command line as TOML; return the text itself where it is not TOML."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text
