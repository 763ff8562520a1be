"""Filter a Parquet corpus: score every row, keep the best half, list what was dropped and why."""

import sysconfig
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import longlode

# A corpus: one row per module of Python's library, and one log that is long without any dependency.
files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:40]
rows = [{"id": path.name, "text": path.read_text(encoding="utf-8", errors="replace")} for path in files]
log = "\n".join(f"2026-01-01 00:00:{n % 60:02} worker {n * 7 % 13} finished task {n}" for n in range(6000))
pq.write_table(pa.Table.from_pylist([*rows, {"id": "log", "text": log}]), "corpus.parquet")

longlode.score("corpus.parquet", "scores")
longlode.select("scores", "kept.parquet", top=0.5)

scores = longlode.read_result("scores").table()
print(
    "status:",
    {status: scores["status"].to_pylist().count(status) for status in set(scores["status"].to_pylist())},
)
kept = pq.read_table("kept.parquet")
print(
    f"kept {kept.num_rows} of {scores.num_rows}; best:",
    kept.sort_by([("score", "descending")])["id"][:3].to_pylist(),
)
assert "log" not in kept["id"].to_pylist()
