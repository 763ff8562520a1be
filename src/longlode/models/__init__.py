"""models: one backbone for every stack of mixers, as a transformers model.

May import: core, ops, mixers.
Start reading: `lm.py` (the backbone), then `config.py` (sizes and stack), `cache.py` (states).

Names are resolved on first use: longlode's import hook needs only `config`, at a moment when transformers' modeling
modules may be half imported.
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
    """Type of this package, which keeps `load` the function after the module `load.py` has been imported.

    Python binds a submodule to its package under its name at its first import; without this,
    `longlode.models.load` would be the function or the module, depending on earlier imports.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "load" and isinstance(value, ModuleType):
            value = value.load
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
