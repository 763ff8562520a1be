"""Options that several commands have in common."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(help="A run folder, a model folder, a hub id, or: starter.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Weights = Annotated[
    Path | None, typer.Option(help="A folder of longlode fit-score: the profile fitted to your corpus.")
]
TextField = Annotated[
    str,
    typer.Option(
        help="Field with the text of a record; several (text,content): the first one that the record has."
    ),
]
Encoding = Annotated[str, typer.Option(help="Encoding of text files and JSON lines: utf-8, latin-1, ...")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of all random draws.")]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace an earlier result of other options in the output folder."),
]
