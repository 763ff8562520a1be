"""Scores of a scorer that measures far context, with a selection beside them, from plain rows."""

import random

import pyarrow as pa
import pyarrow.parquet as pq

from longlode.core.records import write_json, write_jsonl, write_record

STARTS = (1, 2, 4, 8)
"""First k tokens of the octaves."""


def far_rows(num, seed, salt=lambda text: text):
    """Rows as the parts hold them: some pass the gate, some do not, some have no score, some are short."""
    rng = random.Random(seed)
    rows = []
    for k in range(num):
        gate = rng.gauss(0, 2)
        known = rng.randrange(1, len(STARTS) + 1)
        gains = [rng.gauss(0.03, 0.04) for _ in range(known)]
        paid = next((place for place, gain in enumerate(gains) if gain <= 0), known)
        ok = k % 9 != 0
        mean = sum(gains) / known
        row = {
            "id": salt(f"doc{k}"),
            "source": salt(("web", "books")[k % 2]),
            "file": "docs.jsonl",
            "row": k,
            "num_bytes": 1000 + k,
            "num_tokens": None,
            "score": (100 * mean if gate > 0 else gate) if ok else None,
            "score_se": 0.1 if ok and gate > 0 else None,
            "gain_nats": mean if ok else None,
            "status": "ok" if ok else "too_short",
            "reason": "" if ok else salt("under 500 words"),
            "extras.gate": gate if ok else None,
            "extras.rival": salt("lists") if ok else None,
            "extras.dependency_tokens": 1024 * (1, *(2 * s for s in STARTS))[paid] * (paid > 0)
            if ok
            else None,
        }
        for place, start in enumerate(STARTS):
            there = ok and place < known
            row[f"extras.far_{start}k"] = gains[place] if there else None
            row[f"extras.far_{start}k_se"] = 0.01 if there else None
        rows.append(row)
    return rows


def write_far(folder, rows, **record):
    """A scores folder of these rows."""
    (folder / "parts").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "parts" / "a.parquet")
    write_record(
        folder,
        "scores",
        inputs=["docs.jsonl"],
        scorer={"name": "profile", "version": 1, "options": {}},
        settings={"text_field": "text, content"},
        num_documents=len(rows),
        complete=True,
        parts=[{"part": "a.parquet"}],
        **record,
    )


def write_selection(top, name, scores, rows, text):
    """The selection of every row that scores above 0, as `longlode select` leaves it; text: of a row."""
    kept = [row for row in rows if (row["score"] or 0) > 0]
    dropped = [row for row in rows if row not in kept]
    folder = top / "__selection__" / name
    folder.mkdir(parents=True)
    documents = [
        {"id": row["id"], ("text", "content")[n % 2]: text(row), "more": 1} for n, row in enumerate(kept)
    ]
    if name.endswith(".parquet"):
        kinds = {"id": pa.string(), "text": pa.string(), "content": pa.string(), "more": pa.int64()}
        pq.write_table(pa.Table.from_pylist(documents, pa.schema([*kinds.items()])), top / name)
    elif name.endswith(".zst"):
        write_jsonl(top / "plain.jsonl", documents)
        with pa.output_stream(str(top / name), compression="zstd") as stream:
            stream.write((top / "plain.jsonl").read_bytes())
    else:
        write_jsonl(top / name, documents)
    columns = [{k: row[k] for k in ("id", "file", "row")} for row in dropped]
    table = pa.Table.from_pylist([one | {"kind": "below the cut", "why": "rank 9"} for one in columns])
    pq.write_table(table, folder / "dropped.parquet")
    write_json(
        folder / "record.json",
        {
            "kind": "selection",
            "complete": True,
            "scores": f"/elsewhere/{scores.name}",
            "num_documents": len(rows),
            "num_selected": len(kept),
        },
    )
    return kept
