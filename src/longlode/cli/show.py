"""longlode show: rows of a scores folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from longlode.cli.console import finish, say_plain, table
from longlode.cli.habits import shell
from longlode.cli.score_table import shortened

EXAMPLES = (
    "longlode show scores",
    "longlode show scores --bottom 20",
    "longlode show scores --id chapter1.md",
    "longlode show scores --dropped kept.jsonl --where \"kind = 'too_short'\"",
    'longlode show scores --where "num_tokens > 8192 AND gzip_ratio < 0.3" --limit 50 --json',
)


def show(
    scores: Annotated[Path, typer.Argument(help="A folder written by longlode score.")],
    document_id: Annotated[
        str | None, typer.Option("--id", help="Everything about the document of this id.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="The N best documents.")] = None,
    bottom: Annotated[int | None, typer.Option(min=1, help="The N worst documents.")] = None,
    dropped: Annotated[
        Path | None,
        typer.Option(
            help="Only documents that a selection dropped, with reasons: the file that select wrote."
        ),
    ] = None,
    where: Annotated[
        str, typer.Option(help="Only rows that satisfy this SQL condition over the columns.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Rows at most; 10 without --top, --bottom and --id.")
    ] = None,
    excerpt: Annotated[int, typer.Option(min=0, help="Characters of each text to show; 0: none.")] = 200,
) -> dict[str, Any]:
    """Show documents of a scores folder: score, tokens, the reason if there is no score, and how the text begins.

    Without options the 10 best. Texts are read from the paths they had when they were scored; texts that are gone or
    have changed are left out. --json gives all columns of every row. Next: longlode explain SCORES --id ID.
    """
    from longlode.api.scored_rows import show as find_rows

    rows = find_rows(
        scores,
        document_id=document_id,
        top=top,
        bottom=bottom,
        dropped=dropped,
        where=where,
        limit=limit,
        excerpt=excerpt,
    )
    if document_id is not None:
        for row in rows:
            _show_one(row)
    else:
        _show_many(rows)
    finish(
        f"{len(rows):,} document{'s' * (len(rows) != 1)}.",
        then=[
            shell("longlode", "explain", scores, "--id", row["id"]) for row in rows if row["status"] == "ok"
        ][:1],
    )
    return {"rows": rows}


def _show_one(row: dict[str, Any]) -> None:
    """Every column that has a value, and the beginning of the text."""
    facts = [(name, value) for name, value in row.items() if value not in (None, "") and name != "excerpt"]
    table(str(row["id"]), ("column", "value"), facts)
    _show_excerpt(row)


def _show_many(rows: list[dict[str, Any]]) -> None:
    """Print one line per row, then the beginnings of the texts."""
    reasons = any(row["status"] != "ok" or row.get("why") for row in rows)
    columns = ["score", "tokens", "kind" if "kind" in rows[0] else "status", "id", "source"]
    shown = [
        [
            row["score"],
            row["num_tokens"],
            row.get("kind") or row["status"],
            row["id"],
            shortened(row["source"]),
        ]
        for row in rows
    ]
    if reasons:
        columns.append("why")
        shown = [[*cells, row.get("why") or row["reason"]] for cells, row in zip(shown, rows, strict=True)]
    table("Documents", columns, shown)
    for row in rows:
        _show_excerpt(row, row["id"])


def _show_excerpt(row: dict[str, Any], name: str = "") -> None:
    if row["excerpt"]:
        say_plain(f"{name}: {row['excerpt']}" if name else row["excerpt"])


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after Ctrl-C: nothing was written."""
    return "Nothing was written."
