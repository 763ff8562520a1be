"""Check the layout of the source: order of imports, length of files, packages that load no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "longlode"

DATA_TOWER = ("core", "corpus", "mining", "packing")
MODEL_TOWER = ("core", "ops", "mixers", "models", "parallel", "train")
MAY_IMPORT = {
    **{package: set(DATA_TOWER[: level + 1]) for level, package in enumerate(DATA_TOWER)},
    **{package: set(MODEL_TOWER[: level + 1]) for level, package in enumerate(MODEL_TOWER)},
    "evaluate": {"core", "corpus", "ops", "mixers", "models", "parallel", "evaluate"},
    "report": {"core", "report"},
    "readers": {"core", "corpus", "mining", "ops", "mixers", "models", "readers"},
}
MAY_IMPORT["synthetic"] = {"core", "synthetic"}
MAY_IMPORT["api"] = {*MAY_IMPORT, "api"}
MAY_IMPORT["integrations"] = {*MAY_IMPORT, "integrations"}
MAY_IMPORT["cli"] = {*MAY_IMPORT, "cli", "demo"}
MAY_IMPORT["demo"] = MAY_IMPORT["cli"]
TORCH_FREE = {"core", "synthetic", "corpus", "mining", "packing", "report"}
HEAVY = {"torch", "transformers"}
VAGUE_NAMES = {"util.py", "utils.py", "helper.py", "helpers.py", "misc.py", "common.py"}
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60


def _imported(node: ast.AST, package: tuple[str, ...]) -> list[str]:
    """Dotted names that an import statement (or importlib.import_module of a literal) may load."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else ()
        stem = ".".join([*base, *([node.module] if node.module else [])])
        return [f"{stem}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
            return [node.args[0].value]
    return []


def import_faults(source: Path) -> list[str]:
    """Every import under `source` (a folder named longlode), lazy or not, that the order of packages forbids."""
    faults = []
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).parts
        if len(parts) == 1:
            continue
        package = parts[0]
        if package not in MAY_IMPORT:
            faults.append(f"{path}: package {package!r} has no place in the order")
            continue
        allowed = {*MAY_IMPORT[package], "__version__"}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _imported(node, ("longlode", *parts[:-1])):
                pieces = name.split(".")
                where = f"{path}:{node.lineno}: {package} imports {name}"
                if pieces[0] in HEAVY and package in TORCH_FREE:
                    faults.append(f"{where}, and must stay free of it")
                elif pieces[0] == "longlode" and not allowed.issuperset(pieces[1:2]):
                    faults.append(f"{where}, which stands above or beside it")
    return faults


def size_faults(source: Path) -> list[str]:
    """Files and functions that grew too long, and file names that say nothing."""
    faults = []
    for path in sorted(source.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        num_lines = len(text.splitlines())
        if num_lines > MAX_FILE_LINES:
            faults.append(f"{path}: {num_lines} lines, at most {MAX_FILE_LINES}")
        if path.name in VAGUE_NAMES:
            faults.append(f"{path}: a name that says nothing")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    faults.append(
                        f"{path}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"
                    )
    return faults


def docstring_faults(source: Path) -> list[str]:
    """Packages without an __init__.py, or with one that does not say what the package holds."""
    faults = []
    for folder in sorted(path for path in source.iterdir() if path.is_dir() and any(path.rglob("*.py"))):
        opening = folder / "__init__.py"
        if not opening.is_file() or not ast.get_docstring(ast.parse(opening.read_text(encoding="utf-8"))):
            faults.append(f"{folder}: __init__.py must open with a docstring")
    return faults


def test_imports_go_one_way():
    assert import_faults(SOURCE) == []


def test_files_and_functions_are_short():
    assert size_faults(SOURCE) == []


def test_every_package_says_what_it_holds():
    assert docstring_faults(SOURCE) == []


def _loads_after(statement: str) -> set[str]:
    """Heavy packages in sys.modules of a fresh interpreter after `statement`."""
    program = f"import sys\n{statement}\nprint(*set({sorted(HEAVY)!r}).intersection(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "package", ["", ".core", ".corpus", ".synthetic", ".mining", ".packing", ".report", ".cli"]
)
def test_light_packages_load_no_torch(package):
    assert _loads_after(f"import longlode{package}") == set()


def test_the_probe_sees_torch():
    assert "torch" in _loads_after("import torch")


BROKEN = {
    "mining/eager.py": ("from longlode.models import lm\n", "mining imports longlode.models.lm"),
    "mining/lazy.py": ("def f():\n    import longlode.train.loop\n", "mining imports longlode.train.loop"),
    "ops/typed.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from longlode.mixers import base\n",
        "ops imports longlode.mixers.base",
    ),
    "corpus/relative.py": ("from ..packing import loader\n", "corpus imports longlode.packing.loader"),
    "train/sideways.py": ("from longlode import corpus\n", "train imports longlode.corpus"),
    "report/dynamic.py": (
        "import importlib\nimportlib.import_module('longlode.models')\n",
        "report imports longlode.models",
    ),
    "packing/heavy.py": ("def f():\n    import torch\n", "packing imports torch"),
    "attic/stray.py": ("x = 1\n", "no place in the order"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_checker_rejects_broken_imports(tmp_path, name):
    source = tmp_path / "longlode"
    text, expected = BROKEN[name]
    (source / name).parent.mkdir(parents=True)
    (source / name).write_text(text)
    (source / "core").mkdir()
    (source / "core" / "fine.py").write_text("from longlode.core import errors\n")
    faults = import_faults(source)
    assert len(faults) == 1
    assert expected in faults[0]


def test_the_checker_rejects_long_files_and_vague_names(tmp_path):
    source = tmp_path / "longlode"
    (source / "core").mkdir(parents=True)
    (source / "core" / "utils.py").write_text("def f():\n" + "    x = 1\n" * 60)
    (source / "core" / "long.py").write_text("x = 1\n" * 501)
    (source / "core" / "right.py").write_text("def f():\n" + "    x = 1\n" * 59)
    assert [fault.split(": ", 1)[1] for fault in size_faults(source)] == [
        "501 lines, at most 500",
        "a name that says nothing",
        "f has 61 lines, at most 60",
    ]
    assert docstring_faults(source) == [f"{source / 'core'}: __init__.py must open with a docstring"]
