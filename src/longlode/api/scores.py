"""Queries of a scores folder, by SQL: best and worst rows, values by source, reasons for missing scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longlode.core.records import read_record
from longlode.mining.engine.part_queries import query_parts
from longlode.mining.extras import PREFIX

_NUM_REASONS = 5


def score_rows(out: Path, *, order: str, limit: int, extras: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The first `limit` scored ("ok") rows of a scores folder, `order` "best" or "worst" first.

    Each has id, source, file, row, score, num_tokens, num_segments, part (the path of its part), place (the row's
    number in it) and the scorer's own columns that `extras` names.
    """
    parts = part_paths(out)
    if not parts:
        return []
    plain = ("id", "source", "file", "row", "score", "num_tokens", "num_segments")
    wanted = "".join(f', "{PREFIX}{name}"' for name in extras)
    direction = {"best": "DESC", "worst": "ASC"}[order]
    with query_parts(parts) as base:
        rows = base.execute(
            f"SELECT {', '.join(plain)}, filename, file_row_number{wanted} FROM parts "
            f"WHERE status = 'ok' ORDER BY score {direction}, id, file, row LIMIT ?",
            [limit],
        ).fetchall()
    return [dict(zip((*plain, "part", "place", *extras), row, strict=True)) for row in rows]


def table_columns(out: Path) -> list[str]:
    """The scorer's own columns that are shown beside its best and worst scores, from the record of a scores folder."""
    extras = read_record(out, "scores").get("extras", {})
    return [name for name, one in extras.items() if one.get("in_table")]


def rivals(out: Path) -> tuple[int, dict[str, int]]:
    """Counts of the gate's decisions: scored documents above 0, and those below by the most similar family.

    Returns: documents with a score of at least 0; family -> documents below, commonest first.
    """
    with query_parts(part_paths(out)) as base:
        (passed,) = base.execute("SELECT count(*) FROM parts WHERE status = 'ok' AND score >= 0").fetchall()[
            0
        ]
        families = base.execute(
            f"""SELECT "{PREFIX}rival", count(*) FROM parts WHERE status = 'ok' AND score < 0
                GROUP BY 1 ORDER BY 2 DESC, 1"""
        ).fetchall()
    return passed, dict(families)


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
    """The parts that the record of a scores folder names; other parts there are of earlier settings."""
    return [out / "parts" / entry["part"] for entry in read_record(out, "scores")["parts"]]
