"""longlode show, and explain of a document of a scores folder."""

import json
import random

import pytest
from typer.testing import CliRunner

import longlode
from longlode.cli import app
from longlode.core.errors import ConfigError, InputError


def invoke(*arguments, status=0):
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == status, done.output
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sources):
    place = tmp_path_factory.mktemp("show")
    rng = random.Random(7)
    rows = []
    for number in range(14):
        text = rng.choice(sources).read_text(encoding="utf-8")
        start = rng.randrange(len(text) // 2)
        rows.append({"id": f"d{number}", "content": text[start : start + rng.randrange(3000, 9000)]})
    rows.append({"id": "short", "content": ""})
    (place / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    invoke("score", place / "in.jsonl", "-o", place / "s", "--text-field", "content", "--scorer", "gzip")
    invoke("select", place / "s", "-o", place / "k.jsonl", "--top", 0.3)
    return place


@pytest.fixture(scope="module")
def table(folder):
    rows = longlode.read_result(folder / "s").table().to_pylist()
    return sorted((row for row in rows if row["status"] == "ok"), key=lambda row: (-row["score"], row["id"]))


def shown(folder, *options):
    return json.loads(invoke("show", folder / "s", *options, "--json").stdout)["rows"]


def test_the_best_and_the_worst(folder, table):
    names = [row["id"] for row in table]
    assert [row["id"] for row in shown(folder)] == names[:10]
    assert [row["id"] for row in shown(folder, "--top", 3)] == names[:3]
    assert [row["id"] for row in shown(folder, "--bottom", 3)] == names[:-4:-1]
    for row, expected in zip(shown(folder, "--top", 3), table, strict=False):
        assert {name: row[name] for name in expected} == expected


def test_excerpts_are_how_the_texts_begin(folder):
    texts = {
        row["id"]: row["content"] for row in map(json.loads, (folder / "in.jsonl").read_text().splitlines())
    }
    for row in shown(folder, "--top", 4, "--excerpt", 50):
        assert row["excerpt"] == " ".join(texts[row["id"]].split())[:50]
    assert "excerpt" in shown(folder, "--excerpt", 0)[0]


def test_what_a_selection_left_out_and_why(folder, table):
    kept = {json.loads(line)["id"] for line in (folder / "k.jsonl").read_text().splitlines()}
    dropped = shown(folder, "--dropped", folder / "k.jsonl", "--limit", 99)
    assert {row["id"] for row in dropped} == {row["id"] for row in table} - kept | {"short"}
    assert dropped[0]["why"].startswith("rank ")
    (short,) = shown(folder, "--dropped", folder, "--where", "kind = 'too_short'")
    assert (short["id"], short["excerpt"]) == ("short", None)
    assert "rank" in invoke("show", folder / "s", "--dropped", folder / "__selection__/k.jsonl").stdout
    with pytest.raises(InputError, match="no selection"):
        longlode.show(folder / "s", dropped=folder / "in.jsonl")


def test_conditions_and_ids(folder, table):
    median = table[7]["num_bytes"]
    found = shown(folder, "--where", f"num_bytes > {median}", "--limit", 99)
    assert [row["id"] for row in found] == [row["id"] for row in table if row["num_bytes"] > median]
    assert [row["id"] for row in shown(folder, "--id", "d3")] == ["d3"]
    with pytest.raises(InputError, match=r"Did you mean .*d1"):
        longlode.show(folder / "s", document_id="d1x")
    with pytest.raises(ConfigError, match="Did you mean num_bytes"):
        longlode.show(folder / "s", where="num_byte > 3")
    assert "gzip_ratio" in invoke("show", folder / "s", "--id", "d3").stdout
    with pytest.raises(InputError, match="no such row"):
        longlode.show(folder / "s", document_id="nobody")
    for wrong in ({"where": "scored > 1"}, {"top": 1, "bottom": 1}, {"top": 0}):
        with pytest.raises(ConfigError):
            longlode.show(folder / "s", **wrong)


def test_a_document_that_changed_has_no_excerpt(tmp_path, sources):
    path = tmp_path / "a.txt"
    path.write_text(sources[0].read_text(encoding="utf-8")[:3000])
    invoke("score", path, "-o", tmp_path / "s", "--scorer", "gzip")
    path.write_text("another text")
    assert longlode.show(tmp_path / "s")[0]["excerpt"] is None
    with pytest.raises(InputError, match="cannot be read any more"):
        longlode.explain(tmp_path / "s", document_id="a.txt")


def test_a_scored_document_is_explained_by_its_id(folder):
    by_id = longlode.explain(folder / "s", document_id="d2")
    assert by_id == longlode.explain(folder / "in.jsonl", document_id="d2", text_field="content")
    told = invoke("explain", folder / "s", "--id", "d2").stdout
    assert "longlode score" not in told
    with pytest.raises(ConfigError, match="--id"):
        longlode.explain(folder / "s")
