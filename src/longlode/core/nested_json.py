"""JSON of values that orjson refuses because they are nested too deeply."""

from collections.abc import Callable
from typing import Any

import orjson


def dumps_nested(value: Any, default: Callable[[Any], Any]) -> bytes:
    """Write `value` as JSON, nested to any depth: orjson reads 1,024 levels but writes no more than 254.

    Args: default: maps a value without a JSON form to a string, as in `orjson.dumps`.
    Raises: TypeError for a value that neither accepts, or a key that is not a string.
    """
    written: list[bytes] = []
    todo: list[Any] = [value]  # a stack instead of recursion, so that depth has no limit; the next at the end
    while todo:
        item = todo.pop()
        if isinstance(item, _Written):
            written.append(item.text)
        elif isinstance(item, dict):
            todo.append(_Written(b"}"))
            for number, (key, inner) in reversed(list(enumerate(item.items()))):
                if not isinstance(key, str):
                    raise TypeError(f"Dict key must be str, not {type(key).__name__}")
                todo += [inner, _Written((b"," if number else b"") + orjson.dumps(key) + b":")]
            todo.append(_Written(b"{"))
        elif isinstance(item, list | tuple):
            todo.append(_Written(b"]"))
            for number, inner in reversed(list(enumerate(item))):
                todo += [inner, _Written(b"," if number else b"")]
            todo.append(_Written(b"["))
        else:
            written.append(orjson.dumps(item, default=default))
    return b"".join(written)


class _Written:
    """A piece of JSON that is finished."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text
