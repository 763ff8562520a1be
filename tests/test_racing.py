"""`benchmarks.racing`: what it replays is what was scored, and what it reports follows from it."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent / "mining"))

from mining_fakes import CacheReader, random_text

from benchmarks import racing, saved
from longlode.core.errors import InputError
from longlode.core.records import write_jsonl
from longlode.mining import ScoreSettings, make_scorer, score


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("racing")
    docs = [{"id": f"{n}", "text": random_text(f"{n}", 200 + n, vocab=20 + 3 * n)} for n in range(12)]
    write_jsonl(folder / "in.jsonl", [*docs, {"id": "short", "text": "1 2"}])
    for name, pairs, keep in (("all", None, True), ("some", 50, True), ("none", None, False)):
        score(
            folder / "in.jsonl",
            folder / name,
            scorer=make_scorer("strength", pairs=pairs),
            make_reader=CacheReader,
            reader_fingerprint=CacheReader.fingerprint,
            settings=ScoreSettings(segment=8, rows_per_unit=5, keep_pairs=keep),
        )
    return folder


def test_all_pairs_give_the_scores_and_the_cost_of_the_run(folder):
    corpus = racing.load(folder / "all", make_scorer("strength"))
    parts = [pq.read_table(path).to_pylist() for path in (folder / "all/parts").iterdir()]
    found = {row["num_tokens"]: row["score"] for part in parts for row in part if row["status"] == "ok"}
    sizes = [document.num_tokens for document in corpus.documents]
    assert dict(zip(sizes, corpus.scores, strict=True)) == pytest.approx(found, rel=1e-5, abs=1e-6)
    row = racing.replay(corpus, 0.5, {"kind": "fixed", "most": 10**6}, racing.np.random.default_rng(0))
    record = racing.read_record(folder / "all", "scores")
    assert row["read"] == pytest.approx(record["cost"]["tokens_read_per_token"])
    assert (row["spearman"], row["same"]) == (pytest.approx(1.0), 1.0)


def test_racing_is_better_than_as_many_pairs_for_everybody(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(saved, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["racing", str(folder / "all"), "--draws", "20", "--save"])
    racing.main()
    shown = capsys.readouterr().out
    assert "12 documents of 200 to 211 tokens" in shown
    found = json.loads(next(tmp_path.glob("*-racing.json")).read_text())
    rows = found["rows"]
    assert len(rows) == len(racing.FIXED) + len(racing.ERRORS) * len(racing.FIRST) * len(racing.MOST)
    assert sum(line.startswith("| race") for line in shown.splitlines()) == len(rows) - len(racing.FIXED)
    race = next(
        row for row in rows if (row["kind"], row["z"], row["first"], row["most"]) == ("race", 2.0, 32, 256)
    )
    fixed = [row for row in rows if row["kind"] == "fixed"]
    assert race["same"] > max(row["same"] for row in fixed if row["pairs"] <= race["pairs"])
    assert next(tmp_path.glob("*.md")).read_text().count("|\n") == len(rows) + 2


def test_folders_without_all_pairs_are_refused(folder):
    with pytest.raises(InputError, match="holds no pairs"):
        racing.load(folder / "none", make_scorer("strength"))
    with pytest.raises(InputError, match="50 of 300 pairs"):
        racing.load(folder / "some", make_scorer("strength"))
