"""datasets: what `score` and `select` write is loaded by folder and by file; a `save_to_disk` folder is read."""

import json

import pytest
from datasets import Dataset, load_dataset

from peers import tiny
from peers.processes import run

PACKAGES = ("datasets",)


def longlode(*arguments, cwd):
    return run("-m", "longlode", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with `corpus.jsonl`, its scores and two selections."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = [
        json.dumps({"id": str(i), "text": text}) for i, text in enumerate(tiny.texts(20, num_sentences=60))
    ]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    longlode("score", "corpus.jsonl", "-o", "scores", "--scorer", "overlap", cwd=folder)
    for name in ("selected/best.parquet", "lines/best.jsonl.zst"):
        longlode("select", "scores", "--top", "0.5", "-o", name, cwd=folder)
    return folder


@pytest.mark.parametrize("name", ["selected", "lines"])
def test_a_folder_where_select_wrote(corpus, name):
    rows = load_dataset(str(corpus / name), split="train")
    assert len(rows) == 10
    texts = {json.loads(line)["text"] for line in (corpus / "corpus.jsonl").read_text().splitlines()}
    assert set(rows["text"]) <= texts


def test_the_file_that_select_wrote(corpus):
    rows = load_dataset("parquet", data_files=str(corpus / "selected" / "best.parquet"), split="train")
    assert len(rows) == 10
    assert "text" in rows.column_names


def scores(folder):
    """The rows of a folder of scores."""
    return load_dataset("parquet", data_files=str(folder / "scores" / "**" / "*.parquet"), split="train")


def test_a_folder_of_scores(corpus):
    rows = scores(corpus)
    assert len(rows) == 20
    assert all(score is not None for score in rows["score"])


def test_a_folder_of_save_to_disk(corpus, tmp_path):
    rows = load_dataset("json", data_files=str(corpus / "corpus.jsonl"), split="train")
    Dataset.from_list(list(rows)).save_to_disk(tmp_path / "saved")
    longlode("score", "saved", "-o", "scores", "--scorer", "overlap", cwd=tmp_path)
    found = scores(tmp_path)
    skipped = {row["id"] for row in found if row["status"] == "skipped"}
    assert skipped == {"dataset_info.json", "state.json"}, "they describe the dataset, and are said to"
    assert {row["id"]: row["score"] for row in found if row["id"] not in skipped} == {
        row["id"]: row["score"] for row in scores(corpus)
    }
