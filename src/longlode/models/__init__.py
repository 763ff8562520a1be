"""models: one backbone for every stack of mixers, as transformers' users know models.

May import: core, ops, mixers.
Start reading: `lm.py` (the backbone), then `config.py` (the stack is data), `cache.py` (what is remembered).

Names are resolved on first use: longlode's import hook needs `config` alone, at a moment when transformers'
modeling modules may be half imported.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longlode.core.model_names import starter_folder
    from longlode.models.cache import LonglodeCache
    from longlode.models.config import LonglodeConfig
    from longlode.models.heads import LonglodeForSequenceClassification, LonglodeForTokenClassification
    from longlode.models.lm import LonglodeForCausalLM, LonglodeModel, register
    from longlode.models.load import load

__all__ = [
    "LonglodeCache",
    "LonglodeConfig",
    "LonglodeForCausalLM",
    "LonglodeForSequenceClassification",
    "LonglodeForTokenClassification",
    "LonglodeModel",
    "load",
    "register",
    "starter_folder",
]

_HOMES = {
    "LonglodeCache": "cache",
    "LonglodeConfig": "config",
    "LonglodeForCausalLM": "lm",
    "LonglodeForSequenceClassification": "heads",
    "LonglodeForTokenClassification": "heads",
    "LonglodeModel": "lm",
    "load": "load",
    "register": "lm",
}


def __getattr__(name: str) -> Any:
    if name == "starter_folder":
        return importlib.import_module("longlode.core.model_names").starter_folder
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    importlib.import_module("longlode.models.lm").register()
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package, in which `load` is the function also after the module `load.py` has been imported.

    Python binds a submodule to its package under its own name when it is first imported, from wherever;
    without this, what `longlode.models.load` means would depend on who imported what before.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "load" and isinstance(value, ModuleType):
            value = value.load
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
