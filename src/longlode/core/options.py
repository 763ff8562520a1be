"""Typed options of things that are picked by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

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
        raise ConfigError(
            f"{what} has no option {unknown[0]!r}; expected one of {', '.join(known) or 'none'}."
        )
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{what}: {where} is {first['input']!r}: {first['msg']}.") from None
