"""longlode: find long-range dependency in text, train linear-time models on it, prove that they use it.

`import longlode` loads no torch. From then on `AutoModelForCausalLM.from_pretrained` and its kin know our
architecture, in whatever order longlode and transformers are imported (`models/hook.py`).
"""

from longlode.models import hook as _hook

__version__ = "0.1.0"


def register() -> None:
    """Make our architecture known to transformers' Auto classes now; imports torch and transformers."""
    from longlode.models import register as register_models

    register_models()


_hook.install()
