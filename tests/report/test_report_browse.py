"""The table of all documents: complete, with decisions and excerpts where the records have them, and small enough."""

import json
import random
import re

import pytest
from far_records import far_rows, write_far, write_selection
from report_records import NASTY
from test_report_page import Page, faults, page_of

from longlode.core.errors import InputError
from longlode.core.records import read_json, write_json
from longlode.report import browse
from longlode.report.build import render
from longlode.report.read import gather
from longlode.report.text import visible


def table_of(text):
    """The rows that the script gets, by id, each a mapping of columns."""
    (raw,) = [raw for _, kind, raw in Page(text).raw if kind == "application/json" and '"columns"' in raw]
    data = json.loads(raw)
    names = [column["name"] for column in data["columns"]]
    return {
        row[0]: {"anchor": row[1], "excerpt": row[2], **dict(zip(names, row[3], strict=True))}
        for row in data["rows"]
    }


@pytest.mark.parametrize("name", ["kept.jsonl", "kept.jsonl.zst", "kept.parquet"])
def test_decisions_reasons_and_excerpts(name, tmp_path):
    rows = far_rows(60, random.randrange(10**6))
    write_far(tmp_path / "scores", rows)
    kept = write_selection(
        tmp_path, name, tmp_path / "scores", rows, lambda row: f"It begins {row['id']}.\n\nAnd ends."
    )
    text = page_of(tmp_path, tmp_path / "report.html")
    assert faults(text) == []
    table = table_of(text)
    assert list(table) == [
        row["id"]
        for row in sorted(
            rows, key=lambda row: (-(row["score"] if row["score"] is not None else -1e9), row["row"])
        )
    ]
    ids = {row["id"] for row in kept}
    for row in rows:
        shown = table[row["id"]]
        assert shown["decision"] == ("kept" if row["id"] in ids else "dropped")
        assert shown["excerpt"] == (f"It begins {row['id']}. And ends." if row["id"] in ids else "")
        assert ("below the cut: rank 9" in shown["why"]) == (row["id"] not in ids)
        assert ("under 500 words" in shown["why"]) == (row["score"] is None)
        assert shown["bytes"] == row["num_bytes"]
        assert shown["reach"] == row["extras.dependency_tokens"]
        if row["score"] is not None:
            assert shown["score"] == pytest.approx(row["score"], rel=1e-3)
            assert shown["far_1k"] == pytest.approx(row["extras.far_1k"], rel=1e-3)
    page = Page(text)
    assert f"the kept documents in {name}" in page.text
    assert f"; {len(kept)} were selected." in page.text
    anchors = {shown["anchor"] for shown in table.values()} - {""}
    assert anchors == {a["id"] for t, a in page.elements if t == "article"}


def test_selected_documents_may_be_named_in_place_of_the_folder_of_their_selection(tmp_path):
    rows = far_rows(30, 2)
    write_far(tmp_path / "scores", rows)
    kept = write_selection(tmp_path, "kept.jsonl", tmp_path / "scores", rows, lambda row: "It begins.")
    page = Page(render(gather([tmp_path / "scores", tmp_path / "kept.jsonl"])))
    assert f"; {len(kept)} were selected." in page.text
    assert "the kept documents in kept.jsonl" in page.text
    (tmp_path / "notes.jsonl").write_text("")
    with pytest.raises(InputError, match="no selection"):
        gather([tmp_path / "notes.jsonl"])


def test_a_selection_of_other_scores_decides_nothing(tmp_path):
    rows = far_rows(40, 1)
    write_far(tmp_path / "scores", rows)
    write_selection(tmp_path, "kept.jsonl", tmp_path / "scores", rows, lambda row: "x")
    path = tmp_path / "__selection__" / "kept.jsonl" / "record.json"
    write_json(path, read_json(path) | {"num_selected": 3})
    text = page_of(tmp_path, tmp_path / "report.html")
    assert "decision" not in next(iter(table_of(text).values()))
    assert "No excerpts: a scores folder keeps no text." in Page(text).text


def test_without_the_script_the_first_rows_stand_there(tmp_path):
    rows = far_rows(90, 4)
    write_far(tmp_path / "scores", rows)
    text = page_of(tmp_path, tmp_path / "report.html")
    body = re.search(r'<table class="rows">.*?<tbody>(.*?)</tbody>', text, re.S)[1]
    shown = [
        Page(head).text.split()[0]
        for head in re.findall(r'<th scope="row" class="doc">(.*?)</th>', body, re.S)
    ]
    assert shown == list(table_of(text))[: browse.NUM_SHOWN]
    assert f"The first {browse.NUM_SHOWN} of 90 rows" in Page(text).text


def test_of_too_many_documents_both_ends_and_some_between_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(browse, "MAX_ROWS", 20)
    rows = far_rows(200, 6)
    write_far(tmp_path / "scores", rows)
    text = page_of(tmp_path, tmp_path / "report.html")
    ranked = [
        row["id"]
        for row in sorted(
            rows, key=lambda row: (-(row["score"] if row["score"] is not None else -1e9), row["row"])
        )
    ]
    places = [ranked.index(name) for name in table_of(text)]
    assert places[:8] == list(range(8))
    assert places[-8:] == list(range(192, 200))
    assert len(set(places)) == 20
    assert "20 of 200 documents" in Page(text).text


def test_ten_thousand_rows_fit(tmp_path):
    write_far(tmp_path / "scores", far_rows(10_000, 8))
    text = page_of(tmp_path, tmp_path / "report.html")
    assert len(table_of(text)) == 10_000
    assert len(text) < 4_000_000


def test_hostile_rows_stay_data(tmp_path):
    rng = random.Random(2)
    rows = far_rows(30, 2, lambda text: f"{text} {rng.choice(NASTY)}")
    write_far(tmp_path / "scores", rows)
    write_selection(tmp_path, "kept.jsonl", tmp_path / "scores", rows, lambda row: rng.choice(NASTY) * 3)
    text = page_of(tmp_path, tmp_path / "report.html")
    assert faults(text) == []
    assert set(table_of(text)) == {visible(row["id"]) for row in rows}
