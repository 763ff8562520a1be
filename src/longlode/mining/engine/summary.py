"""Summary of all parts: counts, quantiles of the score, ids that occur twice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from longlode.mining.engine.part_queries import MEMORY, query_parts

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

SUMS = ("counts", "num_documents", "score_quantiles", "duplicates")
"""Fields of the result of `summarize_parts`."""
_SHOWN_DUPLICATES = 20
_MOST_MEGABYTES, _MEGABYTES_PER_THREAD = 1000, 64
"""Memory of a query of the sums, small because it fills all that it is given with rows that are on the disk as well."""
_MOST_SCORES, _FEW_SCORES, _SPANS = 1_000_000, 100_000, 4096
_ROWS_PER_PASS, _MOST_PASSES = 2_000_000, 16


def summarize_parts(paths: Sequence[Path]) -> dict[str, Any]:
    """Read the parts once more and sum up.

    Returns: counts (status -> rows), num_documents, score_quantiles (text of the level -> score, over "ok"
      rows), duplicates {num_ids, num_rows (beyond the first of each id), first: [{id, places}]}.
    """
    if not paths:
        return {"counts": {}, "num_documents": 0, "score_quantiles": {}, "duplicates": _duplicates([])}
    with query_parts(paths) as base:
        (threads,) = base.execute("SELECT current_setting('threads')").fetchall()[0]
        base.execute(f"SET memory_limit = '{min(_MOST_MEGABYTES, _MEGABYTES_PER_THREAD * threads)}MB'")
        statuses = base.execute(
            "SELECT status, count(*) FROM parts GROUP BY status ORDER BY status"
        ).fetchall()
        counts = dict(statuses)
        quantiles = _quantiles(base)
        repeated = _repeated(base, sum(counts.values()))
    return {
        "counts": counts,
        "num_documents": sum(counts.values()),
        "score_quantiles": {f"{level:g}": value for level, value in zip(QUANTILES, quantiles, strict=False)},
        "duplicates": _duplicates(repeated),
    }


def _quantiles(base: duckdb.DuckDBPyConnection) -> list[float]:
    """The QUANTILES of the score over "ok" rows, linear between neighbours; [] if there is none.

    DuckDB's own function holds all scores in memory, so above `_MOST_SCORES` each is looked for by counting.
    """
    (number,) = base.execute("SELECT count(score) FROM parts WHERE status = 'ok'").fetchall()[0]
    if number <= _MOST_SCORES:
        asked = "SELECT quantile_cont(score, ?) FROM parts WHERE status = 'ok'"
        return base.execute(asked, [list(QUANTILES)]).fetchall()[0][0] or []
    base.execute("CREATE TABLE scores AS SELECT score FROM parts WHERE status = 'ok' AND score IS NOT NULL")
    found = []
    for level in QUANTILES:
        rank = int(level * (number - 1))
        low = _in_order(base, rank)
        num_up_to, above = base.execute(
            "SELECT count(*) FILTER (score <= $low), min(score) FILTER (score > $low) FROM scores",
            {"low": low},
        ).fetchall()[0]
        high = low if num_up_to > rank + 1 or above is None else above
        share = level * (number - 1) - rank
        found.append(low * (1 - share) + high * share)
    return found


def _in_order(base: duckdb.DuckDBPyConnection, rank: int) -> float:
    """The score with `rank` others before it in ascending order.

    Scores are counted in equal spans between the least and the largest one, then the same in the span where the rank
    lies, until there are few. The largest one is in a span of its own, so each round leaves less.
    """
    low, high, number = base.execute("SELECT min(score), max(score), count(*) FROM scores").fetchall()[0]
    while number > _FEW_SCORES and low < high:
        # Halves, because the difference of two large numbers may be no number.
        spans = base.execute(
            """SELECT count(*), min(score), max(score) FROM scores WHERE score BETWEEN $low AND $high
               GROUP BY CASE WHEN score = $high THEN $spans ELSE least($spans - 1, coalesce(
                 floor((score / 2 - $low / 2) / nullif($high / 2 - $low / 2, 0) * $spans), 0)) END ORDER BY 2""",
            {"low": low, "high": high, "spans": float(_SPANS)},
        ).fetchall()
        for span in spans:
            if rank < span[0]:
                break
            rank -= span[0]
        number, low, high = span
    if low == high:
        return float(low)
    inside = "SELECT score FROM scores WHERE score BETWEEN $low AND $high ORDER BY score LIMIT 1 OFFSET $rank"
    return float(base.execute(inside, {"low": low, "high": high, "rank": rank}).fetchall()[0][0])


def _repeated(base: duckdb.DuckDBPyConnection, num_rows: int) -> list[tuple[str, int, list[str]]]:
    """The ids that occur more than once, ascending: id, number of rows, their places.

    First by hashes of 8 bytes, which are kept on the disk and counted a share at a time, so that ten million take
    little more memory than two; beyond `_MOST_PASSES` the database moves what it cannot hold to the disk.
    """
    passes = min(_MOST_PASSES, 1 + num_rows // _ROWS_PER_PASS)
    base.execute("CREATE TABLE hashes AS SELECT hash(id) AS hashed FROM parts")
    base.execute("CREATE TABLE repeated (hashed UBIGINT)")
    for number in range(passes):
        base.execute(
            """INSERT INTO repeated SELECT hashed FROM hashes WHERE hashed % $passes::UBIGINT = $number::UBIGINT
               GROUP BY hashed HAVING count(*) > 1""",
            {"passes": passes, "number": number},
        )
    base.execute(f"SET memory_limit = '{MEMORY}'")  # lists of places cannot be moved to the disk
    return base.execute(
        """SELECT id, count(*), list(file || '#' || row ORDER BY file, row) FROM parts
           WHERE hash(id) IN (SELECT hashed FROM repeated) GROUP BY id HAVING count(*) > 1 ORDER BY id"""
    ).fetchall()


def _duplicates(repeated: Sequence[tuple[str, int, list[str]]]) -> dict[str, Any]:
    return {
        "num_ids": len(repeated),
        "num_rows": sum(count - 1 for _, count, _ in repeated),
        "first": [
            {"id": name, "places": places[:_SHOWN_DUPLICATES]}
            for name, _, places in repeated[:_SHOWN_DUPLICATES]
        ],
    }
