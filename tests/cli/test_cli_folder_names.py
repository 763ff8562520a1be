"""Folders called `name=value`, as partitioned data sets have them, change no result of any command."""

import pyarrow.parquet as pq
import pytest

from longlode.core.records import read_json, read_jsonl, write_jsonl

PLACES = ["runs/score=3", "id=7", "status=failed", "source=books", "part=9", "num_tokens=1"]


@pytest.fixture(scope="module")
def documents(tmp_path_factory, sources):
    """JSON lines of eight pieces of source, of two sources and several lengths."""
    pieces = []
    for number in range(8):
        text = sources[number % len(sources)].read_text(encoding="utf-8")
        text = text[3000 * number : 3000 * number + 4000]
        if number % 2:  # lines in another order score low: within sources and over all, others are the best
            text = "\n".join(sorted(text.splitlines()))
        pieces.append({"id": f"s{number}", "source": "ab"[number % 2], "text": text})
    path = tmp_path_factory.mktemp("documents") / "docs.jsonl"
    write_jsonl(path, pieces)
    return path


def work_in(folder, run, documents):
    """Score, select, pack and report in `folder`; what they wrote, as plain values."""
    scores, kept, shards = folder / "scores", folder / "kept.jsonl", folder / "shards"
    shown = run("score", documents, "-o", scores, "--scorer", "coherence")
    run("select", scores, "-o", kept, "--top", 0.5, "--by", "source")
    run("pack", kept, "-o", shards, "--length", 64)
    run("report", folder, "-o", folder / "report.html")
    page = (folder / "report.html").read_text(encoding="utf-8")
    record = read_json(scores / "record.json")
    return {
        "shown": [line.split() for line in shown.splitlines() if "Documents by status" not in line][:20],
        "quantiles": record["score_quantiles"],
        "counts": record["counts"],
        "kept": read_jsonl(kept),
        "shards": read_json(shards / "record.json")["fingerprint"],
        "histograms": page.count("median"),
    }


@pytest.fixture(scope="module")
def usual(tmp_path_factory, run, documents):
    return work_in(tmp_path_factory.mktemp("usual"), run, documents)


@pytest.mark.parametrize("place", PLACES)
def test_a_folder_called_name_equals_value_changes_nothing(tmp_path, run, documents, usual, place):
    folder = tmp_path / place
    folder.mkdir(parents=True)
    found = work_in(folder, run, documents)
    assert found == usual
    scores = {
        row["id"]: row["score"]
        for part in (folder / "scores/parts").glob("*.parquet")
        for row in pq.read_table(part, partitioning=None).to_pylist()
    }
    assert {row["id"]: row["score"] for row in found["kept"]}.items() <= scores.items()
    for source in "ab":
        ranked = sorted((name for name in scores if int(name[1]) % 2 == "ab".index(source)), key=scores.get)
        assert {row["id"] for row in found["kept"] if row["source"] == source} == set(ranked[-2:])
