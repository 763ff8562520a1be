"""Summary of all parts: counts, quantiles of the score, ids that occur twice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from longlode.mining.engine.part_queries import query_parts

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

SUMS = ("counts", "num_documents", "score_quantiles", "duplicates")
"""Fields of the result of `summarize_parts`."""
_SHOWN_DUPLICATES = 20
_ROWS_PER_PASS, _MOST_PASSES = 2_000_000, 16


def summarize_parts(paths: Sequence[Path]) -> dict[str, Any]:
    """Read the parts once more and sum up.

    Returns: counts (status -> rows), num_documents, score_quantiles (text of the level -> score, over "ok"
      rows), duplicates {num_ids, num_rows (beyond the first of each id), first: [{id, places}]}.
    """
    if not paths:
        return {"counts": {}, "num_documents": 0, "score_quantiles": {}, "duplicates": _duplicates([])}
    with query_parts(paths) as base:
        statuses = base.execute(
            "SELECT status, count(*) FROM parts GROUP BY status ORDER BY status"
        ).fetchall()
        counts = dict(statuses)
        quantiles = base.execute(
            "SELECT quantile_cont(score, ?) FROM parts WHERE status = 'ok'", [list(QUANTILES)]
        ).fetchall()[0][0]
        repeated = _repeated(base, sum(counts.values()))
    return {
        "counts": counts,
        "num_documents": sum(counts.values()),
        "score_quantiles": {
            f"{level:g}": value for level, value in zip(QUANTILES, quantiles or [], strict=False)
        },
        "duplicates": _duplicates(repeated),
    }


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
