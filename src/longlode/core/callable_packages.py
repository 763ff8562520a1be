"""Packages that can be called like a function: `longlode.evaluate(...)`.

`evaluate`, `report` and `train` are both packages and functions of `longlode`. Python binds a package to that name
whenever anything imports it, which would replace a function of the same name; a callable package serves as both.
"""

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A module that passes calls on to the function that `make_callable` named."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return _function(self)(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        """Signature of the function, for help and tab completion."""
        return inspect.signature(_function(self))


def make_callable(package: str, function: str) -> None:
    """Make a package callable. Args: package, its `__name__`; function, "module:name", imported at the first call."""
    module = sys.modules[package]
    module.__dict__["_called_as"] = function
    module.__class__ = _CallablePackage


def _function(package: ModuleType) -> Any:
    module, _, name = package.__dict__["_called_as"].partition(":")
    return getattr(importlib.import_module(module), name)
