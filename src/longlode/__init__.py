"""longlode: find long-range dependency in text, train linear-time models on it, prove that they use it.

`import longlode` loads no torch. After it, `AutoModelForCausalLM.from_pretrained` and related functions know longlode's
architecture, in whatever order longlode and transformers are imported (`models/hook.py`).
"""

import importlib
from typing import TYPE_CHECKING, Any

from longlode.models import hook as _hook

if TYPE_CHECKING:
    from longlode.api.checks import doctor
    from longlode.api.estimate import estimate
    from longlode.api.explanation import explain
    from longlode.api.generation import generate
    from longlode.api.results import read_result
    from longlode.api.score_fitting import fit_score
    from longlode.api.scored_rows import show
    from longlode.api.scoring import score, score_texts
    from longlode.api.status import status
    from longlode.api.training import train_run as train
    from longlode.evaluate.bench import bench
    from longlode.evaluate.by_name import evaluate_model as evaluate
    from longlode.evaluate.compare import compare
    from longlode.mining.select import select
    from longlode.packing.by_name import pack
    from longlode.report.build import build as report

__all__ = [
    "__version__",
    "bench",
    "compare",
    "doctor",
    "estimate",
    "evaluate",
    "explain",
    "fit_score",
    "generate",
    "pack",
    "read_result",
    "register",
    "report",
    "score",
    "score_texts",
    "select",
    "show",
    "status",
    "train",
]
__version__ = "0.1.0"

_FUNCTIONS = {
    "bench": "longlode.evaluate.bench",
    "compare": "longlode.evaluate.compare",
    "doctor": "longlode.api.checks",
    "estimate": "longlode.api.estimate",
    "explain": "longlode.api.explanation",
    "fit_score": "longlode.api.score_fitting",
    "generate": "longlode.api.generation",
    "pack": "longlode.packing.by_name",
    "read_result": "longlode.api.results",
    "score": "longlode.api.scoring",
    "score_texts": "longlode.api.scoring",
    "select": "longlode.mining.select",
    "show": "longlode.api.scored_rows",
    "status": "longlode.api.status",
}
"""The commands as functions; `evaluate`, `report` and `train` are packages that can be called."""


def _packages() -> set[str]:
    import pkgutil  # lazy: an interrupt during `import longlode` shows a traceback, so this is to be short

    return {found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_")}


def __getattr__(name: str) -> Any:
    """Import a function or a package at its first use, so that `import longlode` stays light."""
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if not name.startswith("_") and name in _packages():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_packages()})


def register() -> None:
    """Make our architecture known to transformers' Auto classes now; imports torch and transformers."""
    from longlode.models import register as register_models

    register_models()


_hook.install()
