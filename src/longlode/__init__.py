"""longlode: find long-range dependency in text, train linear-time models on it, prove that they use it.

`import longlode` loads no torch. From then on `AutoModelForCausalLM.from_pretrained` and its kin know our
architecture, in whatever order longlode and transformers are imported (`models/hook.py`).
"""

import importlib
import pkgutil
from typing import Any

from longlode.models import hook as _hook

__all__ = ["__version__", "register"]
__version__ = "0.1.0"

_ROOMS = frozenset(room.name for room in pkgutil.iter_modules(__path__) if not room.name.startswith("_"))


def __getattr__(name: str) -> Any:
    """Import a room when it is first asked for, so that `longlode.mining` needs no import of its own."""
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})


def register() -> None:
    """Make our architecture known to transformers' Auto classes now; imports torch and transformers."""
    from longlode.models import register as register_models

    register_models()


_hook.install()
