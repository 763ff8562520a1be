"""What all parts together say: counts, quantiles of the score, ids that occur twice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

_SHOWN_DUPLICATES = 20


def summarize_parts(paths: Sequence[Path]) -> dict[str, Any]:
    """Read the parts once more and sum up.

    Returns: counts (status -> rows), num_documents, score_quantiles (text of the level -> score, over "ok"
      rows), duplicates {num_ids, num_rows (beyond the first of each id), first: [{id, places}]}.
    """
    if not paths:
        return {"counts": {}, "num_documents": 0, "score_quantiles": {}, "duplicates": _duplicates([])}
    names = [str(path) for path in paths]
    with duckdb.connect() as base:
        statuses = base.execute(
            "SELECT status, count(*) FROM read_parquet(?) GROUP BY status ORDER BY status", [names]
        ).fetchall()
        quantiles = base.execute(
            "SELECT quantile_cont(score, ?) FROM read_parquet(?) WHERE status = 'ok'",
            [list(QUANTILES), names],
        ).fetchall()[0][0]
        repeated = base.execute(
            """SELECT id, count(*), list(file || '#' || row ORDER BY file, row)
               FROM read_parquet(?) GROUP BY id HAVING count(*) > 1 ORDER BY id""",
            [names],
        ).fetchall()
    counts = dict(statuses)
    return {
        "counts": counts,
        "num_documents": sum(counts.values()),
        "score_quantiles": {
            f"{level:g}": value for level, value in zip(QUANTILES, quantiles or [], strict=False)
        },
        "duplicates": _duplicates(repeated),
    }


def _duplicates(repeated: Sequence[tuple[str, int, list[str]]]) -> dict[str, Any]:
    return {
        "num_ids": len(repeated),
        "num_rows": sum(count - 1 for _, count, _ in repeated),
        "first": [
            {"id": name, "places": places[:_SHOWN_DUPLICATES]}
            for name, _, places in repeated[:_SHOWN_DUPLICATES]
        ],
    }
