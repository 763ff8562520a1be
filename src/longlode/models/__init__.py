"""models: one backbone for every stack of mixers, as transformers' users know models.

May import: core, ops, mixers.
Start reading: `lm.py` (the backbone), then `config.py` (the stack is data), `cache.py` (what is remembered).

Names are resolved on first use: longlode's import hook needs `config` alone, at a moment when transformers'
modeling modules may be half imported.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longlode.models.cache import LonglodeCache
    from longlode.models.config import LonglodeConfig
    from longlode.models.lm import LonglodeForCausalLM, LonglodeModel, register
    from longlode.models.load import load, starter_folder

__all__ = [
    "LonglodeCache",
    "LonglodeConfig",
    "LonglodeForCausalLM",
    "LonglodeModel",
    "load",
    "register",
    "starter_folder",
]

_HOMES = {
    "LonglodeCache": "cache",
    "LonglodeConfig": "config",
    "LonglodeForCausalLM": "lm",
    "LonglodeModel": "lm",
    "load": "load",
    "register": "lm",
    "starter_folder": "load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    importlib.import_module("longlode.models.lm").register()
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
