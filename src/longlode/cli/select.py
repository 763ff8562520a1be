"""longlode select: keep the best part of a scored corpus."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from longlode.cli.console import finish, note, table
from longlode.cli.habits import shell
from longlode.cli.options import Overwrite
from longlode.core.errors import ConfigError

EXAMPLES = (
    "longlode select scores -o kept.jsonl.zst --top 0.5",
    "longlode select scores -o kept.parquet --top 0.1 --by length,source",
    "longlode select scores -o kept.jsonl --min-score 0.2 --column gain_nats",
)


def select(
    scores: Annotated[Path, typer.Argument(help="A folder written by longlode score.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File to write: .jsonl, .jsonl.gz, .jsonl.zst or .parquet.")
    ],
    top: Annotated[
        float | None, typer.Option(help="Keep this fraction of the scored documents, 0 to 1.")
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Keep documents that score at least this.")] = None,
    by: Annotated[
        str, typer.Option(help="Take the fraction within each of: length, source (comma-separated).")
    ] = "",
    column: Annotated[
        str,
        typer.Option(
            help="The column of the scores to go by, also extras.NAME; score_low: score - 2 score_se."
        ),
    ] = "score",
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Write the documents that score best, and beside them what was dropped and why.

    Give --top or --min-score. With --by length the fraction is taken among documents of like length (the power of
    two at or below their tokens), so that long ones do not win by being long; with --by source among those of one
    source: the record's `source`, else its file; of whole files their folder. Of a group of n documents max(1, top * n
    rounded) are kept, so groups of one or two keep more than the fraction; the summary says how many are small.

    OUT holds the documents. __selection__/NAME beside it holds the record and dropped.parquet, every other row with
    its reason. Next: longlode pack OUT.
    """
    if (top is None) == (min_score is None):
        raise ConfigError(
            f"select needs one rule, got {'none' if top is None else 'two'}: give either --top FRACTION "
            "(for example --top 0.5) or --min-score X."
        )
    from longlode.mining.select import select as run_selection

    groups = tuple(name.strip() for name in by.split(",") if name.strip())
    summary = run_selection(
        scores, out, top=top, min_score=min_score, by=groups, column=column, overwrite=overwrite
    )
    rows = [
        ("kept", summary.num_selected, summary.kept_tokens),
        *(
            (f"dropped: {kind}", number, summary.cut_tokens if kind == "below the cut" else None)
            for kind, number in summary.dropped.items()
        ),
        ("all input documents", summary.num_documents, None),
    ]
    table("Selection", ("what", "documents", "tokens"), rows)
    if groups:
        note(f"{summary.num_groups:,} groups, {summary.num_small_groups:,} of fewer than 10 documents.")
    if summary.remark:
        note(f"Warning: {summary.remark}")
    finish(
        f"Kept documents: {out}. Dropped, with why: {summary.dropped_path}",
        then=[shell("longlode", "pack", out, "-o", "shards", "--tokenizer", "starter", "--length", 4096)],
    )
    return vars(summary)


def interrupted(options: Mapping[str, Any]) -> str:
    """What Ctrl-C leaves: whole files only; the record says "complete": false until all three are of this selection."""
    return f"The selection {options['out']} is not finished; the same command makes it anew."
