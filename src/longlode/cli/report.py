"""longlode report: one HTML page from the folders that other commands wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from longlode.cli.console import finish
from longlode.cli.habits import shell
from longlode.cli.options import Overwrite

EXAMPLES = (
    "longlode report scores kept.jsonl.zst -o report.html",
    "longlode report scores runs/small eval -o report.html",
    "longlode report demo-out -o report.html",
)


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders written by longlode (or URLs of them), and files of selected documents; folders below them "
            "count."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Write one self-contained page: the finding, all documents to browse, what decided scores, training, evaluation.

    The page loads nothing from elsewhere and needs no server: open it in a browser or send it by email.
    Corpus text in it is escaped.
    """
    from longlode.corpus.mirror import input_folder
    from longlode.report import build

    page = build([input_folder(folder) for folder in folders], out, overwrite=overwrite)
    size = page.stat().st_size
    finish(f"The report: {out} ({size / 1024:,.0f} kB)", then=[f"open {shell(out)} in a browser"])
    return {"out": page, "num_bytes": size}


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after Ctrl-C: the page is unchanged."""
    return f"{options['out']} is as it was; the same command starts anew."
