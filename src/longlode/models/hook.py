"""Import hook that registers the architecture with transformers when transformers is imported.

transformers reads a model's config.json through `configuration_auto`. Right after that module has run,
longlode's config class is added to its table; the model classes follow when a config is made (`config.py`). Loading
torch and transformers in `import longlode` instead would cost seconds in programs that only mine or pack.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

AUTO_MODULE = "transformers.models.auto.configuration_auto"


def install() -> None:
    """Register the config class now if transformers is imported, else at its import; may be called repeatedly."""
    if AUTO_MODULE in sys.modules:
        _register_config(sys.modules[AUTO_MODULE])
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport:
    """Finder of one module, once, by the other finders, that adds a step after its execution.

    Not a subclass of importlib.abc.MetaPathFinder, whose module imports pathlib and tempfile and would slow the import.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != AUTO_MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register_config(module)

        # On the instance, so that the loader's other methods (source, resources) are unchanged.
        setattr(spec.loader, "exec_module", execute_and_register)  # noqa: B010
        return spec


def _register_config(auto_module: ModuleType) -> None:
    from longlode.models.config import LonglodeConfig

    auto_module.CONFIG_MAPPING.register(LonglodeConfig.model_type, LonglodeConfig, exist_ok=True)
