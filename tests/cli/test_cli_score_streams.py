"""longlode score: standard input and output, encodings, several text fields, a limit, and a dry run."""

import gzip
import json

import pytest
from typer.testing import CliRunner

from longlode.cli import app

FAST = ("--scorer", "gzip")


def invoke(*arguments, data=b"", status=0):
    done = CliRunner().invoke(app, [str(one) for one in arguments], input=data)
    assert done.exit_code == status, done.output
    return done


def lines(shown):
    return [json.loads(line) for line in shown.splitlines()]


def records(**fields):
    return [
        {"id": f"d{number}", **{name: f"{value} {number}" for name, value in fields.items()}}
        for number in range(5)
    ]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_rows_go_to_standard_output_and_nothing_else_does(corpus, tmp_path):
    invoke("score", corpus, "-o", tmp_path / "s", *FAST)
    found = lines(invoke("score", corpus, "-o", "-", *FAST).stdout)
    from longlode import read_result

    assert found == read_result(tmp_path / "s").table().to_pylist()
    assert [row["id"] for row in lines(invoke("score", corpus, "-o", "-", "-q", *FAST).stdout)] == [
        row["id"] for row in found
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_records_come_from_standard_input(packed):
    data = jsonl(records(text="a text"))
    found = lines(invoke("score", "-", "-o", "-", *FAST, data=gzip.compress(data) if packed else data).stdout)
    assert [(row["id"], row["source"], row["status"]) for row in found] == [
        (f"d{number}", "stdin", "ok") for number in range(5)
    ]


def test_a_text_comes_from_standard_input_and_can_be_selected(tmp_path):
    text = "{ no record, but code }\nand more"
    invoke("score", "-", "-o", tmp_path / "s", *FAST, data=text.encode())
    invoke("score", "-", "-o", tmp_path / "s", *FAST, data=text.encode())  # the same goes on
    invoke("select", tmp_path / "s", "-o", tmp_path / "k.jsonl", "--top", 1)
    (kept,) = lines((tmp_path / "k.jsonl").read_text())
    assert (kept["text"], kept["source"]) == (text, "stdin")
    shown = invoke("score", "-", "-o", tmp_path / "s", *FAST, data=b"another", status=2)
    assert "--overwrite" in " ".join(shown.stderr.split())


def test_the_format_can_be_said():
    data = jsonl(records(text="a text"))
    (row,) = lines(invoke("score", "-", "-o", "-", "--format", "text", *FAST, data=data).stdout)
    assert row["num_bytes"] == len(data)
    assert (
        "jsonl, text" in invoke("score", "-", "-o", "-", "--format", "xml", *FAST, data=data, status=2).stderr
    )
    assert "empty" in invoke("score", "-", "-o", "-", *FAST, status=2).stderr


def test_the_first_text_field_of_several_that_is_there(tmp_path):
    rows = [
        {"text": "one"},
        {"content": "two"},
        {"text": None, "content": "three"},
        {"content": "no", "text": "four"},
        {},
    ]
    (tmp_path / "in.jsonl").write_bytes(jsonl({"id": str(n), **row} for n, row in enumerate(rows)))
    found = invoke(
        "score", tmp_path / "in.jsonl", "-o", tmp_path / "s", "--text-field", "text,content", *FAST, "--json"
    )
    assert json.loads(found.stdout)["counts"] == {"failed": 1, "ok": 4}
    invoke("select", tmp_path / "s", "-o", tmp_path / "k.jsonl", "--top", 1)
    kept = lines((tmp_path / "k.jsonl").read_text())
    assert [row["text"] for row in kept] == ["one", "two", "three", "four"]
    assert kept[3]["content"] == "no"
    assert all("content" not in row for row in kept[:3])


def test_texts_of_other_encodings(tmp_path):
    text = "Größe und Maß, 5 € "
    (tmp_path / "a.txt").write_text(text, encoding="cp1252")
    (tmp_path / "b.jsonl").write_bytes(json.dumps({"text": text}, ensure_ascii=False).encode("cp1252"))
    for encoding, expected in (("utf-8", "failed"), ("cp1252", "ok"), ("utf-16", "failed")):
        found = lines(
            invoke(
                "score",
                tmp_path / "a.txt",
                tmp_path / "b.jsonl",
                "-o",
                "-",
                "--encoding",
                encoding,
                *FAST,
                status=0 if expected == "ok" else 1,
            ).stdout
        )
        assert {row["status"] for row in found} == {expected}
        assert expected == "failed" or {row["num_bytes"] for row in found} == {len(text.encode())}
    (tmp_path / "c.txt").write_text(text, encoding="utf-16")
    (row,) = lines(invoke("score", tmp_path / "c.txt", "-o", "-", "--encoding", "UTF16", *FAST).stdout)
    assert row["num_bytes"] == len(text.encode())
    invoke("score", tmp_path / "a.txt", "-o", tmp_path / "s", "--encoding", "cp1252", *FAST)
    invoke("select", tmp_path / "s", "-o", tmp_path / "k.jsonl", "--top", 1)
    assert lines((tmp_path / "k.jsonl").read_text())[0]["text"] == text
    shown = invoke("score", tmp_path / "a.txt", "-o", "-", "--encoding", "latin_2x", *FAST, status=2).stderr
    assert "latin_2" in shown


def test_a_limit_takes_the_first_documents_and_can_be_raised(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_bytes(
            jsonl(row | {"id": name + row["id"]} for row in records(text="x"))
        )
    options = (tmp_path / "a.jsonl", tmp_path / "b.jsonl", "-o", tmp_path / "s", "--rows-per-unit", 2, *FAST)

    def scored(*more):
        invoke("score", *options, *more)
        from longlode import read_result

        result = read_result(tmp_path / "s")
        return [row["id"] for row in result.table().to_pylist()], result.record

    names = [f"{name}d{number}" for name in "ab" for number in range(5)]
    for limit in (1, 3, 7):
        assert scored("--limit", limit)[0] == names[:limit]
    found, record = scored()
    assert found == names
    assert record["num_reused"] > 0
    assert "limit" not in record
    (tmp_path / "t").mkdir()
    for number in range(4):
        (tmp_path / "t" / f"{number}.txt").write_text("text")
    assert len(lines(invoke("score", tmp_path / "t", "-o", "-", "--limit", 3, *FAST).stdout)) == 3


def test_a_dry_run_counts_and_times_and_writes_nothing(tmp_path, sources):
    rows = [
        {
            "id": str(number),
            "source": "even" if number % 2 == 0 else "odd",
            "text": sources[0].read_text()[: 9000 + number],
        }
        for number in range(9)
    ]
    (tmp_path / "in.jsonl").write_bytes(jsonl([*rows, {"id": "none"}]))
    found = json.loads(
        invoke("score", tmp_path / "in.jsonl", "--dry-run", "--json", "--scorer", "coherence").stdout
    )
    assert (found["documents"], found["readable"], found["exact"]) == (10, 9, True)
    assert {one["source"]: one["documents"] for one in found["sources"]} == {"even": 5, "odd": 4}
    assert found["bytes"] == sum(len(row["text"].encode()) for row in rows)
    assert found["seconds"] > 0
    whole = json.loads(
        invoke("score", tmp_path / "in.jsonl", "-o", tmp_path / "s", "--scorer", "coherence", "--json").stdout
    )
    assert abs(found["tokens"] / whole["cost"]["document_tokens"] - 1) < 0.1
    shown = invoke("score", tmp_path / "in.jsonl", "--dry-run", *FAST).stdout
    assert "even" in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "s"]


def test_a_place_for_the_scores_is_needed(corpus):
    assert "-o FOLDER" in invoke("score", corpus, status=2).stderr
