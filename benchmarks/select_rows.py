"""Time and memory of ranking a large corpus: `longlode select` without its documents.

    python -m benchmarks.select_rows [--rows 10000000] [--save]

Score parts with random rows are written first (one in a hundred ids occurs twice, one row in twenty has no score).
Then, each in a process of its own: the best 10 % of all, the best 10 % by length and source, and a budget of tokens by
length under a condition. Each ranks all rows, counts what is kept and dropped, and writes dropped.parquet with every
dropped row and its reason, as select does; reading the kept documents again, one unit at a time, is not part of it.
Checked: kept and dropped rows add up to the rows, no id is kept twice, and the kept share, or the kept tokens, are
those asked for. Printed: seconds and the most resident memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.saved import about, save
from longlode.mining.engine.part_queries import query_parts
from longlode.mining.engine.parts import COLUMNS
from longlode.mining.selection_rule import Rule, rank

ROWS_PER_PART = 200_000
RULES: dict[str, dict[str, Any]] = {
    "top 0.1": {"top": 0.1},
    "top 0.1 by length, source": {"top": 0.1, "by": ("length", "source")},
    "tokens 1B by length, if over 2,048": {"tokens": 10**9, "by": ("length",), "where": "num_tokens > 2048"},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(rank_once(Path(asked.child[0]), asked.child[1], asked.rows)))
        return
    with tempfile.TemporaryDirectory(prefix="longlode-select-") as folder:
        write_parts(Path(folder), asked.rows)
        size = sum(path.stat().st_size for path in Path(folder).glob("*.parquet"))
        rows = [_measured(folder, name, asked.rows) for name in RULES]
    lines = [
        f"{asked.rows:,} rows, parts of {size / 1e6:,.0f} MB",
        "",
        "| rule | kept | seconds | MB, most |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['rule']} | {row['kept']:,} | {row['seconds']:.0f} | {row['peak_mb']:,.0f} |" for row in rows
    ]
    print("\n".join(lines))
    if asked.save:
        save("select-rows", {**about("select_rows"), "part_bytes": size, "rows": rows}, "\n".join(lines))


def _measured(folder: str, name: str, num_rows: int) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.select_rows",
        "--rows",
        str(num_rows),
        "--child",
        folder,
        name,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)


def write_parts(folder: Path, num_rows: int) -> None:
    """Write score parts with random rows."""
    draw = np.random.default_rng(0)
    for number, first in enumerate(range(0, num_rows, ROWS_PER_PART)):
        size = min(ROWS_PER_PART, num_rows - first)
        ids = np.arange(first, first + size)
        ids = np.where(draw.random(size) < 0.01, np.maximum(ids - 1, 0), ids)
        is_scored = draw.random(size) >= 0.05
        score = draw.normal(size=size)
        columns: dict[str, Any] = {
            "id": pa.array([f"https://host{one % 997}.org/documents/{one}" for one in ids]),
            "source": pa.array([f"source-{one}" for one in draw.integers(0, 20, size)]),
            "file": pa.array([f"part-{number:05d}.jsonl.zst"] * size),
            "row": pa.array(np.arange(size)),
            "num_bytes": pa.array(draw.lognormal(9, 1, size).astype(np.int64)),
            "num_tokens": pa.array(draw.lognormal(7.7, 1, size).astype(np.int64)),
            "score": pa.array(np.where(is_scored, score, np.nan), from_pandas=True),
            "score_se": pa.array(np.where(is_scored, 0.1, np.nan), from_pandas=True),
            "status": pa.array(np.where(is_scored, "ok", "too_short")),
            "reason": pa.array(np.where(is_scored, "", "fewer than 1,100 tokens (4 bytes count as a token)")),
        }
        arrays = [
            columns[field.name].cast(field.type) if field.name in columns else pa.nulls(size, field.type)
            for field in COLUMNS
        ]
        pq.write_table(pa.table(arrays, schema=COLUMNS), folder / f"{number:05d}.parquet", compression="zstd")


def rank_once(folder: Path, name: str, num_rows: int) -> dict[str, Any]:
    """Rank all rows by one rule, and check the result."""
    parts, rule = sorted(folder.glob("*.parquet")), Rule(**RULES[name])
    started = time.perf_counter()
    with query_parts(parts) as base:
        rank(base, parts, rule)
        dropped = folder / f"dropped-{len(name)}.rows"
        base.execute(
            f"""COPY (SELECT id, source, file, row, num_bytes, score, value, status, kind, why FROM ranked
                      WHERE kind IS NOT NULL ORDER BY part, place)
                TO '{dropped}' (FORMAT parquet, COMPRESSION zstd)"""
        )
        seconds = time.perf_counter() - started
        kept, kept_ids, tokens, candidates = base.execute(
            """SELECT count(*) FILTER (kind IS NULL), approx_count_distinct(id) FILTER (kind IS NULL),
                      sum(num_tokens) FILTER (kind IS NULL), count(rank) FROM ranked"""
        ).fetchall()[0]
    assert kept + pq.read_metadata(dropped).num_rows == num_rows, "kept and dropped rows are all rows"
    assert abs(kept_ids / kept - 1) < 0.1, "no id is kept twice"
    if rule.top is not None:
        assert abs(kept / candidates - rule.top) < 0.001
    else:
        assert rule.tokens is not None
        assert rule.tokens * 0.999 < tokens <= rule.tokens
    dropped.unlink()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"rule": name, "kept": kept, "seconds": seconds, "peak_mb": peak}


if __name__ == "__main__":
    main()
