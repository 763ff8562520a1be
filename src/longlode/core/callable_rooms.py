"""Rooms that are called like the function that they are named after: `longlode.evaluate(...)`.

`evaluate`, `report` and `train` are rooms, and what their commands do. Python binds a room to `longlode` under its name
whenever anything imports it, so a function of that name would come and go; a room that can be called is always both.
"""

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any


class _CallableRoom(ModuleType):
    """A module that passes calls on to the function that `make_callable` named."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return _function(self)(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        """The function's, for help and tab completion."""
        return inspect.signature(_function(self))


def make_callable(room: str, function: str) -> None:
    """Make a room callable. Args: room, its `__name__`; function, "module:name", imported at the first call."""
    module = sys.modules[room]
    module.__dict__["_called_as"] = function
    module.__class__ = _CallableRoom


def _function(room: ModuleType) -> Any:
    module, _, name = room.__dict__["_called_as"].partition(":")
    return getattr(importlib.import_module(module), name)
