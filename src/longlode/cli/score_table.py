"""What a scores folder says: the rows at its ends, and tables for a person."""

from pathlib import Path
from typing import Any

from longlode.cli.console import note, say, table
from longlode.core.records import read_record
from longlode.mining.part_queries import query_parts

NUM_SHOWN = 5


def score_rows(out: Path, *, order: str, limit: int) -> list[dict[str, Any]]:
    """The first `limit` scored ("ok") rows of a scores folder, `order` "best" or "worst" first.

    Each has id, source, file, row, score, num_tokens, num_segments and part (the path of its part).
    """
    parts = _part_paths(out)
    if not parts:
        return []
    columns = ("id", "source", "file", "row", "score", "num_tokens", "num_segments", "part")
    direction = {"best": "DESC", "worst": "ASC"}[order]
    with query_parts(parts) as base:
        rows = base.execute(
            "SELECT id, source, file, row, score, num_tokens, num_segments, filename FROM parts "
            f"WHERE status = 'ok' ORDER BY score {direction}, id, file, row LIMIT ?",
            [limit],
        ).fetchall()
    return [dict(zip(columns, row, strict=True)) for row in rows]


def signal_by_source(out: Path, expression: str) -> dict[str, list[float]]:
    """Values of a column, or of an SQL expression of columns, over the "ok" rows, by source."""
    values: dict[str, list[float]] = {}
    query = f"SELECT source, {expression} AS value FROM parts WHERE status = 'ok' AND value IS NOT NULL"
    with query_parts(_part_paths(out)) as base:
        for source, value in base.execute(query).fetchall():
            values.setdefault(source, []).append(value)
    return values


def show_scores(out: Path) -> None:
    """Print what a scores folder holds: counts that add up, quantiles, the best and the worst documents."""
    record = read_record(out, "scores")
    rows = [*sorted(record["counts"].items()), ("all input documents", record["num_documents"])]
    table("Documents by status", ("status", "documents"), rows)
    if record["score_quantiles"]:
        levels = [f"{float(level):.0%}" for level in record["score_quantiles"]]
        table("Score: this share lies below", levels, [list(record["score_quantiles"].values())])
    best = score_rows(out, order="best", limit=NUM_SHOWN)
    worst = [row for row in score_rows(out, order="worst", limit=NUM_SHOWN) if row not in best]
    for title, documents in (("Best documents", best), ("Worst documents", worst)):
        if documents:
            shown = [(d["score"], d["num_tokens"], d["id"], d["source"]) for d in documents]
            table(title, ("score", "tokens", "id", "source"), shown)
    duplicates = record["duplicates"]["num_ids"]
    if duplicates:
        note(f"{duplicates:,} ids occur more than once; select keeps the first of each.")


def show_race(out: Path) -> str:
    """Print what a race of a scores folder has done, nothing for other scores.

    Returns: what to select, as options of `longlode select`.
    """
    record = read_record(out, "scores")
    race = record.get("race")
    if race is None:
        return "--top 0.5"
    by = ",".join(race["by"])
    tokens = record["cost"]["document_tokens"]
    rows = [
        (
            number,
            one["pairs"],
            *(one[name] for name in ("documents", "num_decided", "num_spent", "num_open")),
            (one["tokens_alone"] + one["tokens_given"]) / tokens if tokens else 0.0,
        )
        for number, one in enumerate(race.get("rounds", []), 1)
    ]
    if rows:
        table(
            f"Race for the best {race['top']:.0%}" + (f" by {by}" if by else ""),
            ("round", "pairs", "read", "decided", "at the most", "open", "tokens read a token"),
            rows,
        )
        read = record["cost"]["tokens_read_per_token"]
        say(
            f"{race['num_decided_early']:,} documents were decided before the most pairs; the model read {read:.2f} "
            "tokens for each token of the documents."
        )
    return f"--top {race['top']:g}" + (f" --by {by}" if by else "")


def first_reasons(out: Path) -> list[str]:
    """The commonest statuses and reasons of the rows that have no score, one line each."""
    parts = _part_paths(out)
    if not parts:
        return []
    with query_parts(parts) as base:
        rows = base.execute(
            "SELECT status, reason, count(*), min(id) FROM parts WHERE status <> 'ok' "
            "GROUP BY status, reason ORDER BY count(*) DESC, status, reason LIMIT ?",
            [NUM_SHOWN],
        ).fetchall()
    return [f"{count:,} {status}: {reason} (for example {name})" for status, reason, count, name in rows]


def _part_paths(out: Path) -> list[Path]:
    """The parts that the record of a scores folder names; others there are of earlier settings."""
    return [out / "parts" / entry["part"] for entry in read_record(out, "scores")["parts"]]
