"""longlode pack: token shards for training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from longlode.cli.console import finish, progress, table
from longlode.cli.habits import shell
from longlode.cli.options import Encoding, Overwrite, TextField
from longlode.cli.score_options import Workers

EXAMPLES = (
    "longlode pack kept.jsonl.zst -o shards --tokenizer starter --length 4096",
    "longlode pack chats.jsonl -o shards --chat messages --tokenizer my-model --length 4096",
    "longlode pack scores -o shards --workers 8",
    "longlode pack corpus/ -o shards --mix books=0.4,code=0.6",
    "longlode pack 'books/*.txt' notes/ -o shards --tokenizer runs/small/model --length 1024",
)

FIGURES = {
    "num_documents": "documents",
    "num_tokens": "tokens",
    "num_rows": "rows of --length tokens",
    "num_files": "files",
    "num_too_short": "left out: too short",
    "num_skipped": "left out: skipped",
    "num_failed": "left out: failed",
}
"""Figures of the summary, in the order and the words of the table."""

Mix = Annotated[
    str,
    typer.Option(
        help="Shares of the packed tokens by group, e.g. books=0.4,code=0.6; a group is a source, COLUMN:VALUE, "
        "COLUMN:LOW..HIGH or rest. What it has beyond its share is left out."
    ),
]


def pack(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders or globs, e.g. the output of longlode select; or a scores folder."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    tokenizer: Annotated[
        str, typer.Option(help="Folder with tokenizer.json, a run, a hub id, or: starter.")
    ] = "starter",
    length: Annotated[int, typer.Option(min=2, help="Tokens per training sequence.")] = 4096,
    workers: Workers = 1,
    mix: Mix = "",
    chat: Annotated[
        str, typer.Option(help="Field with the messages of a chat; then only the answers have a loss.")
    ] = "",
    chat_template: Annotated[
        Path | None, typer.Option(help="File with a chat template (Jinja); unset: the tokenizer's own.")
    ] = None,
    overwrite: Overwrite = False,
    text_field: TextField = "text",
    encoding: Encoding = "utf-8",
) -> dict[str, Any]:
    """Tokenize documents into memory-mapped shards.

    OUT holds the tokens of every document (int32), its boundaries, its hash, and the tokenizer. Fields of a record
    that are numbers, booleans or short texts become columns, by which a recipe can mix (data.mix). INPUTS may also be
    one scores folder: its documents are packed with their scores as columns. A killed run goes on where it was.
    Next: longlode train RECIPE.toml.
    """
    from longlode.packing.by_name import pack as run_packing

    with progress("packing") as update:
        summary = run_packing(
            inputs,
            out,
            tokenizer=tokenizer,
            length=length,
            workers=workers,
            mix=mix or None,
            chat=chat,
            chat_template=chat_template,
            overwrite=overwrite,
            text_field=text_field,
            encoding=encoding,
            progress=lambda documents, tokens: update(documents, None, f"documents, {tokens:,} tokens"),
        )
    _show(summary)
    train = shell("longlode", "train", "RECIPE.toml", "-o", "runs/first", "--set", f"data.shards={out}")
    finish(f"Shards: {out}", then=[train])
    return {"out": out, **summary}


def _show(summary: Mapping[str, Any]) -> None:
    """Print the figures, and those of the groups of a mixture."""
    table("Shards", ("what", "number"), [(name, summary[key]) for key, name in FIGURES.items()])
    shown = [
        (
            one["name"],
            f"{one['share']:.0%}",
            f"{one['kept_tokens'] / max(1, summary['num_tokens']):.1%}",
            *(one[key] for key in ("kept_tokens", "tokens", "kept_documents", "documents")),
        )
        for one in summary.get("mix", ())
    ]
    if shown:
        head = ("group", "asked for", "share", "tokens", "of tokens", "documents", "of documents")
        table("Mixture", head, shown)


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after Ctrl-C: no shards were written."""
    return f"No shards were written to {options['out']}; the same command goes on where it was."
