"""transformers' own common model tests, from its source distribution on PyPI; never a part of this repository.

    python -m peers.upstream      fetch the distribution of the installed version into the cache (needs the network)

The source distribution ships the shared mixins of transformers' tests (`tests/test_*_common.py`, `test_*_mixin.py`)
and none of the folders beside them. What the mixins import from those folders is put in place here: a mixin that is
not shipped becomes an empty class, so its tests do not run, and `NOT_SHIPPED` says so in the table.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType

PACKAGE = "transformers_tests"
_CONFIG_KEYWORDS = {  # any base-class setting that a config must take and keep, at a value that is not its default
    "return_dict": False,
    "output_hidden_states": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "is_encoder_decoder": True,
    "architectures": ["SomeArchitecture"],
    "id2label": {0: "no", 1: "yes", 2: "perhaps"},
    "label2id": {"no": 0, "yes": 1, "perhaps": 2},
    "problem_type": "regression",
}
# module of transformers' tests -> what the shipped mixins take from it
_BESIDE = {
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "utils.test_configuration_utils": {"config_common_kwargs": _CONFIG_KEYWORDS},
}


def version() -> str:
    """The installed version of transformers."""
    return importlib.metadata.version("transformers")


def tests_folder() -> Path:
    """Where the tests of the installed version lie once fetched, outside of any checkout."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "longlode-peers" / f"transformers-{version()}" / "tests"


def fetch() -> Path:
    """Download the source distribution of the installed transformers and unpack its tests, once."""
    folder = tests_folder()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        wanted = f"transformers=={version()}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "transformers"]
        subprocess.run([*pip, "--dest", scratch, wanted], check=True)
        (archive,) = Path(scratch).glob("transformers-*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(scratch, filter="data")
        (unpacked,) = Path(scratch).glob("transformers-*/tests")
        # test_configuration_common loads the package that it stands in, by its __init__.py; none is shipped.
        (unpacked / "__init__.py").touch()
        unpacked.rename(folder)
    return folder


def _load_package() -> list[str]:
    """Make the fetched folder importable as PACKAGE; return the modules whose place an empty one takes."""
    folder = tests_folder()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"transformers' own tests are not in {folder}. Fetch them: python -m peers.upstream"
        )
    package = ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[PACKAGE] = package
    absent = []
    for name, contents in _BESIDE.items():
        if (folder / Path(*name.split("."))).with_suffix(".py").is_file():
            continue
        parent = sys.modules.setdefault(
            f"{PACKAGE}.{name.split('.')[0]}", ModuleType(f"{PACKAGE}.{name.split('.')[0]}")
        )
        parent.__path__ = []
        module = ModuleType(f"{PACKAGE}.{name}")
        module.__dict__.update(contents)
        sys.modules[module.__name__] = module
        absent.append(name)
    return absent


NOT_SHIPPED: list[str] = []


def mixins(name: str) -> ModuleType:
    """Import a module of transformers' tests, such as `test_modeling_common`."""
    if PACKAGE not in sys.modules:
        NOT_SHIPPED[:] = _load_package()
    return importlib.import_module(f"{PACKAGE}.{name}")


if __name__ == "__main__":
    print(f"transformers {version()}: its common tests are in {fetch()}")
