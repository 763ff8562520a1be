"""What a scores folder says, by SQL: the rows at its ends, values by source, why rows have no score."""

from pathlib import Path
from typing import Any

from longlode.core.records import read_record
from longlode.mining.engine.part_queries import query_parts

_NUM_REASONS = 5


def score_rows(out: Path, *, order: str, limit: int) -> list[dict[str, Any]]:
    """The first `limit` scored ("ok") rows of a scores folder, `order` "best" or "worst" first.

    Each has id, source, file, row, score, num_tokens, num_segments and part (the path of its part).
    """
    parts = part_paths(out)
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
    with query_parts(part_paths(out)) as base:
        for source, value in base.execute(query).fetchall():
            values.setdefault(source, []).append(value)
    return values


def first_reasons(out: Path) -> list[str]:
    """The commonest statuses and reasons of the rows that have no score, one line each."""
    parts = part_paths(out)
    if not parts:
        return []
    with query_parts(parts) as base:
        rows = base.execute(
            "SELECT status, reason, count(*), min(id) FROM parts WHERE status <> 'ok' "
            "GROUP BY status, reason ORDER BY count(*) DESC, status, reason LIMIT ?",
            [_NUM_REASONS],
        ).fetchall()
    return [f"{count:,} {status}: {reason} (for example {name})" for status, reason, count, name in rows]


def part_paths(out: Path) -> list[Path]:
    """The parts that the record of a scores folder names; others there are of earlier settings."""
    return [out / "parts" / entry["part"] for entry in read_record(out, "scores")["parts"]]
