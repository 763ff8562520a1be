"""The list of all keys that a recipe may have, for `longlode train --list-keys` and the reference."""

import dataclasses
from typing import Annotated, Any, Literal, get_args, get_origin

from longlode.train.recipe import all_fields
from longlode.train.sections import FREE


@dataclasses.dataclass(frozen=True)
class RecipeKey:
    """A key of a recipe: section.key, its type, its default in TOML ("required" without one), its meaning."""

    name: str
    type: str
    default: str
    description: str
    may_change_on_resume: bool


def list_keys() -> list[RecipeKey]:
    """List every key that a recipe may have, section by section."""
    return [
        RecipeKey(
            name,
            _type_name(field.annotation),
            "required" if field.is_required() else _toml_value(field.get_default(call_default_factory=True)),
            field.description or "",
            field.json_schema_extra == FREE,
        )
        for name, field in all_fields().items()
    ]


def _type_name(annotation: Any) -> str:
    """Name a type: int, float, "cosine" | "wsd", list of str ..."""
    if annotation is type(None):
        return "none"
    inner = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _type_name(inner[0])
    if get_origin(annotation) is Literal:
        return " | ".join(f'"{value}"' for value in inner)
    if get_origin(annotation) in (list, tuple):
        return f"list of {_type_name(inner[0])}"
    if get_origin(annotation) is dict:
        return "table"
    if inner:
        return " | ".join(_type_name(one) for one in inner)
    return getattr(annotation, "__name__", str(annotation))


def _toml_value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{}" if not value else str(value)
    return f'"{value}"' if isinstance(value, str) else str(list(value) if isinstance(value, tuple) else value)
