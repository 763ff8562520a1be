"""Options of longlode score, as types."""

from pathlib import Path
from typing import Annotated

import typer

Inputs = Annotated[
    list[str], typer.Argument(help="Files, folders, globs in quotes, URLs, or -: standard input.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Folder to write; the same command goes on there. -: print the rows as JSON lines instead. Always needed "
        "but for --dry-run.",
    ),
]
Model = Annotated[str, typer.Option(help="For scorers that read one: starter, a folder, or a hub id.")]
Segment = Annotated[int, typer.Option(min=2, help="Tokens of a segment.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes; the result does not depend on it.")]
ScorerName = Annotated[
    str,
    typer.Option(
        help="profile: what context beyond 1k tokens is worth, where the text is one text in its order. To compare "
        "with: coherence, order, paper, release, strength, context_gain, attention_mass, overlap, gzip."
    ),
]
ScorerOption = Annotated[
    list[str] | None,
    typer.Option(help="An option of the scorer: KEY=VALUE, as often as needed. A wrong key lists them all."),
]
PairNumber = Annotated[
    str | None,
    typer.Option(
        help="Pairs of segments that a model reads in a document, or: all. Default: 0, no model, for scores that need "
        "none (profile, coherence, order, overlap, gzip), else 500."
    ),
]
Threads = Annotated[
    int,
    typer.Option(min=1, help="Threads of a process that reads the model; another number rounds otherwise."),
]
RowsPerUnit = Annotated[int, typer.Option(min=1, help="Documents of one piece of work.")]
Dtype = Annotated[str, typer.Option(help="Of the model: float32, bfloat16, or auto (the faster one here).")]
KeepPairs = Annotated[bool, typer.Option("--keep-pairs", help="Also store every pair that was read.")]
Explain = Annotated[bool, typer.Option(help="Also map the 2 best and 2 worst documents, for the report.")]
RaceTop = Annotated[
    float | None,
    typer.Option(
        help="Read only as many pairs of a document as it takes to tell whether it is in the best fraction, "
        "for example 0.5; for --scorer strength. --pairs is the most."
    ),
]
RaceBy = Annotated[
    str, typer.Option(help="With --race: the best fraction of each of: length, source (comma-separated).")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Score only the first N documents.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Say how many documents and tokens there are and how long it will take; write nothing.",
    ),
]
StdinFormat = Annotated[
    str, typer.Option("--format", help="Of standard input: jsonl, text (one document), or auto.")
]
