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
Segment = Annotated[int, typer.Option(min=2, help="Tokens per segment.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes; the result does not depend on it.")]
ScorerName = Annotated[
    str,
    typer.Option(
        help="profile: the gain from context beyond 1k tokens, if the document is one text in its order. For "
        "comparison: coherence, order, paper, release, strength, context_gain, attention_mass, overlap, gzip."
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
    typer.Option(min=1, help="Threads per process that reads the model; scores may differ by rounding."),
]
Engine = Annotated[
    str,
    typer.Option(
        help="Where the workers are: processes (of this machine), or ray (actors of the cluster in RAY_ADDRESS)."
    ),
]
RowsPerUnit = Annotated[
    int, typer.Option(min=1, help="Most documents per work unit; a stopped run resumes at units.")
]
UnitsPerPart = Annotated[
    int,
    typer.Option(
        min=1, help="Mean number of work units whose results are merged into one file; 1: none are."
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Hash all finished results again; else those that have their size and time of when they were hashed last "
        "are taken.",
    ),
]
ShardOption = Annotated[
    str,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Score only share I of N, for job arrays; all shards write to one folder.",
    ),
]
Dtype = Annotated[
    str, typer.Option(help="Precision of the model: float32, bfloat16, or auto (the faster here).")
]
KeepPairs = Annotated[
    bool, typer.Option("--keep-pairs", help="Also store every pair of segments that was read.")
]
Explain = Annotated[bool, typer.Option(help="Also map the 2 best and 2 worst documents, for the report.")]
RaceTop = Annotated[
    float | None,
    typer.Option(
        help="Keep this best fraction, for example 0.5, and read only as many pairs per document as that decision "
        "takes; for --scorer strength. --pairs is the upper limit."
    ),
]
RaceBy = Annotated[
    str, typer.Option(help="With --race: the best fraction within each of: length, source (comma-separated).")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Score only the first N documents.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print the number of documents and tokens and the time it would take; write nothing.",
    ),
]
StdinFormat = Annotated[
    str, typer.Option("--format", help="Format of standard input: jsonl, text (one document), or auto.")
]
