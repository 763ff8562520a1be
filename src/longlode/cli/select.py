"""longlode select: keep the best part of a scored corpus."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longlode.cli.console import finish, note, say, table
from longlode.cli.habits import shell
from longlode.cli.options import Overwrite
from longlode.core.errors import ConfigError

if TYPE_CHECKING:
    from longlode.mining import SelectSummary

EXAMPLES = (
    "longlode select scores -o kept.jsonl.zst --top 0.5",
    "longlode select scores -o kept.parquet --tokens 10B --by length,source",
    "longlode select scores -o kept.jsonl --top 0.1 --near-duplicates 0.8",
    "longlode select scores -o kept.jsonl --min 0.2 --max 4 --column gain_nats",
    "longlode select scores -o kept.jsonl --top 0.1 --where \"num_tokens >= 4096 AND source <> 'web'\" --dry-run",
)
_GROUPS_SHOWN = 12

Top = Annotated[float | None, typer.Option(help="Keep this fraction of the documents, 0 to 1.")]
Tokens = Annotated[str | None, typer.Option(help="Keep about this many tokens: 10B, 500M, 64k, 4096.")]
MinScore = Annotated[
    float | None, typer.Option("--min", "--min-score", help="Keep only documents that score at least this.")
]
MaxScore = Annotated[
    float | None, typer.Option("--max", "--max-score", help="Keep only documents that score at most this.")
]
Where = Annotated[
    str, typer.Option(help="Keep only documents that satisfy this SQL condition over the columns.")
]
By = Annotated[
    str,
    typer.Option(help="Take the fraction or the tokens within each of: length, source (comma-separated)."),
]
Column = Annotated[
    str,
    typer.Option(
        help="The column of the scores to rank by, also extras.NAME; score_low: score - 2 score_se."
    ),
]
NearDuplicates = Annotated[
    float | None,
    typer.Option(
        help="Drop documents that are at least so similar (0.8: 80 % of their shingles) to a better one that is kept."
    ),
]


def select(
    scores: Annotated[Path, typer.Argument(help="A folder written by longlode score.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File to write: .jsonl, .jsonl.gz, .jsonl.zst or .parquet.")
    ],
    top: Top = None,
    tokens: Tokens = None,
    min_score: MinScore = None,
    max_score: MaxScore = None,
    where: Where = "",
    by: By = "",
    column: Column = "score",
    near_duplicates: NearDuplicates = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be kept; write nothing.")
    ] = False,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Write the documents that score best, and beside them what was dropped and why.

    Give --top, --tokens, --min, --max or --where. The last three limit which documents may be kept; --top or --tokens
    then take the best of those. With --by length they are taken among documents of similar length (the power of two
    at or below their tokens), so that long documents do not win by length alone; with --by source, among those of one
    source: the record's `source`, else its file; for whole files, their folder. Of a group of n documents --top keeps
    max(1, top * n rounded), so groups of one or two keep more than the fraction; the summary says so. --tokens cuts
    every group at the same depth.

    OUT holds the documents. __selection__/NAME beside it holds the record and dropped.parquet, every other row with
    its reason. Next: longlode pack OUT.
    """
    if all(one is None for one in (top, tokens, min_score, max_score)) and not where:
        raise ConfigError(
            "select needs to know what to keep: give --top FRACTION (for example --top 0.5), --tokens N (for example "
            "--tokens 10B), --min X, --max X or --where CONDITION."
        )
    from longlode.mining.select import select as run_selection
    from longlode.mining.selection_files import dropped_path

    groups = tuple(name.strip() for name in by.split(",") if name.strip())
    summary = run_selection(
        scores,
        out,
        top=top,
        tokens=tokens,
        min_score=min_score,
        max_score=max_score,
        where=where,
        by=groups,
        column=column,
        near_duplicates=near_duplicates,
        dry_run=dry_run,
        overwrite=overwrite,
    )
    _show(summary, groups, column)
    if dry_run:
        finish("Nothing was written: the same command without --dry-run writes it.")
    else:
        pack = shell("longlode", "pack", out, "-o", "shards", "--tokenizer", "starter", "--length", 4096)
        finish(f"Kept documents: {out}. Dropped, with why: {dropped_path(out)}", then=[pack])
    return {**vars(summary), "written": not dry_run}


def _show(summary: "SelectSummary", groups: tuple[str, ...], column: str) -> None:
    """Print what is kept: of the whole, and of each group."""
    cut = summary.dropped.items()
    rows = [
        ("kept", summary.num_selected, summary.kept_tokens),
        *((f"dropped: {kind}", number, None) for kind, number in cut),
        ("all input documents", summary.num_documents, None),
    ]
    table("Selection", ("what", "documents", "tokens"), rows)
    share = summary.num_selected / max(1, summary.num_candidates)
    of_tokens = summary.kept_tokens / max(1, summary.kept_tokens + summary.cut_tokens)
    say(
        f"Kept {share:.1%} of the documents that can be compared and {of_tokens:.1%} of their tokens; the lowest kept "
        f"{column} is {summary.lowest_selected:.4g}."
    )
    if groups:
        shown = summary.groups[:_GROUPS_SHOWN]
        rows = [
            (
                *one["group"],
                one["documents"],
                one["kept"],
                one["kept"] / one["documents"],
                one["kept_tokens"],
                one["cut"],
            )
            for one in shown
        ]
        names = [f"{name} from" if name == "length" else name for name in groups]
        table("Groups, the largest first", (*names, "documents", "kept", "share", "kept tokens", "cut"), rows)
        left = summary.num_groups - len(shown)
        more = f" ({left:,} more are not shown)" if left else ""
        note(f"{summary.num_groups:,} groups{more}, {summary.num_small_groups:,} of fewer than 10 documents.")
    if summary.remark:
        note(f"Warning: {summary.remark}")


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after Ctrl-C: only whole files are on disk; the record's "complete" is false until all are written."""
    return f"The selection {options['out']} is not finished; the same command makes it anew."
