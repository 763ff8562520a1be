"""Writes the reference pages from the code: commands, recipe keys, Python names. They are not kept in git.

Each page is made anew at every build, so that it cannot say what the code does not do.
"""

import importlib
import inspect
from pathlib import Path
from typing import Any

from columns_page import columns_page

PACKAGES = (
    "longlode", "longlode.corpus", "longlode.mining", "longlode.packing", "longlode.ops.delta_rule", "longlode.mixers",
    "longlode.models", "longlode.train", "longlode.evaluate", "longlode.report",
)  # fmt: skip


def python_page(package: str) -> str:
    """One page for the public names of a package, in the order of its `__all__`."""
    module = importlib.import_module(package)
    names = [name for name in getattr(module, "__all__", []) if not name.startswith("_")]
    lines = [f"# {package}", "", "```{eval-rst}"]
    for name in names:
        value = getattr(module, name)
        if inspect.ismodule(value):
            continue
        kind = "autoclass" if inspect.isclass(value) else "autofunction" if callable(value) else "autodata"
        lines.append(f".. {kind}:: {package}.{name}")
        if kind == "autoclass":
            lines.append("   :members:")
        if kind == "autodata":
            lines.append("   :no-value:")
        lines.append("")
    return "\n".join([*lines, "```", ""])


def command_page() -> str:
    """Every command with its arguments and options, as `--help` has them."""
    import typer.main

    from longlode.cli import app

    lines = ["# Commands", "", "What `longlode COMMAND --help` says, on one page.", ""]
    for name, command in typer.main.get_command(app).commands.items():
        summary = (command.help or "").split("\n\n")[0].replace("\b", "").strip()
        lines += [
            f"## longlode {name}",
            "",
            " ".join(summary.split()),
            "",
            "| option | default | meaning |",
            "|---|---|---|",
        ]
        for parameter in command.params:
            options = [*parameter.opts, *parameter.secondary_opts]
            shown = parameter.name.upper() if parameter.param_type_name == "argument" else ", ".join(options)
            default = (
                "" if parameter.default is None or callable(parameter.default) else str(parameter.default)
            )
            meaning = " ".join((getattr(parameter, "help", "") or "").split()).replace("|", "\\|")
            lines.append(f"| `{shown}` | {f'`{default}`' if default else ''} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def recipe_page() -> str:
    """Every key of a training recipe: type, default, meaning."""
    from longlode.train import Recipe

    lines = ["# Recipe keys", "", "A recipe is a TOML file. Unknown keys are refused.", ""]
    for section, field in Recipe.model_fields.items():
        model = field.annotation
        if not hasattr(model, "model_fields"):
            continue
        lines += [f"## [{section}]", "", "| key | type | default | meaning |", "|---|---|---|---|"]
        for key, spec in model.model_fields.items():
            kind = getattr(spec.annotation, "__name__", None) or str(spec.annotation)
            default = (
                "required" if spec.is_required() else f"`{spec.get_default(call_default_factory=True)!r}`"
            )
            meaning = " ".join((spec.description or "").split()).replace("|", "\\|")
            kind = str(spec.annotation).replace("|", "\\|") if "|" in str(spec.annotation) else kind
            lines.append(f"| `{key}` | `{kind}` | {default} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def write_pages(folder: Path) -> None:
    """Write all pages below `folder`, leaving alone those that are already as they should be."""
    pages = {"commands.md": command_page(), "recipes.md": recipe_page(), "columns.md": columns_page()}
    toctree = ["# Python", "", "```{toctree}", ":maxdepth: 1", ""]
    for package in PACKAGES:
        pages[f"python/{package}.md"] = python_page(package)
        toctree.append(package)
    pages["python/index.md"] = "\n".join([*toctree, "```", ""])
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _generate(app: Any) -> None:
    write_pages(Path(app.srcdir) / "reference" / "generated")


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", _generate)
    return {"parallel_read_safe": True}
