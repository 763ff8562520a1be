"""Bad input, each kind: a clear message or a row with its status, no traceback, no other document lost."""

import functools
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from longlode.core.records import read_record

SEGMENT = 16


@pytest.fixture
def score(run, model_folder):
    """Run `longlode score` with the tiny model; gives its output and id -> (status, reason)."""

    def _score(out: Path, *inputs: object, status: int = 0) -> tuple[str, dict[str, tuple[str, str]]]:
        options = ("--model", model_folder, "--scorer", "strength", "--segment", SEGMENT, "--no-explain")
        shown = run("score", *inputs, "-o", out, *options, status=status)
        rows = [row for part in (out / "parts").glob("*.parquet") for row in pq.read_table(part).to_pylist()]
        return shown, {row["id"]: (row["status"], row["reason"]) for row in rows}

    return _score


@pytest.fixture
def good(sources) -> str:
    return sources[0].read_text(encoding="utf-8")[:1500]


def test_bad_files_become_rows_and_lose_no_other(score, tmp_path, good):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.txt").write_text(good)
    (folder / "empty.txt").write_text("")
    (folder / "one_token.txt").write_text("a")
    (folder / "bad_bytes.txt").write_bytes(good.encode() + b"\xff\xfe rest")
    (folder / "fake.parquet").write_text("this is no parquet file")
    shown, rows = score(tmp_path / "out", folder)
    assert {name: status for name, (status, _) in rows.items()} == {
        "good.txt": "ok",
        "empty.txt": "too_short",
        "one_token.txt": "too_short",
        "bad_bytes.txt": "failed",
        "fake.parquet": "failed",
    }
    assert all(reason for name, (_, reason) in rows.items() if name != "good.txt")
    assert "UTF-8" in rows["bad_bytes.txt"][1]
    record = read_record(tmp_path / "out", "scores")
    assert record["counts"] == {"ok": 1, "too_short": 2, "failed": 2}
    assert record["num_documents"] == 5
    assert "all input documents 5" in shown


def test_bad_records_become_rows_and_lose_no_other(score, tmp_path, good):
    records = tmp_path / "records.jsonl"
    lines = [json.dumps({"id": "first", "text": good}), '{"id": "broken", "text": ']
    lines += [json.dumps({"id": "no-text", "body": good}), json.dumps({"id": "last", "text": good})]
    records.write_text("\n".join(lines) + "\n")
    _, rows = score(tmp_path / "out", records)
    assert len(rows) == 4
    assert rows["first"][0] == rows["last"][0] == "ok"
    assert rows["no-text"][0] == "failed"
    assert "text" in rows["no-text"][1]
    (broken,) = set(rows) - {"first", "last", "no-text"}
    assert rows[broken][0] == "failed"
    assert "JSON" in rows[broken][1]


def test_an_over_long_line_becomes_a_row(score, tmp_path, good, monkeypatch):
    from longlode.corpus import read_unit
    from longlode.mining.engine import work

    monkeypatch.setattr(work, "read_unit", functools.partial(read_unit, max_line_bytes=5000))
    records = tmp_path / "records.jsonl"
    lines = [
        {"id": "first", "text": good},
        {"id": "long", "text": "x" * 20_000},
        {"id": "last", "text": good},
    ]
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, rows = score(tmp_path / "out", records)
    assert len(rows) == 3
    assert rows["first"][0] == rows["last"][0] == "ok"
    (status, reason) = next(rows[name] for name in rows if name not in ("first", "last"))
    assert status == "failed"
    assert "longer than 5,000 bytes" in reason


def test_nothing_scored_is_said_with_the_reasons(score, tmp_path):
    fake = tmp_path / "fake.parquet"
    fake.write_text("this is no parquet file")
    shown, rows = score(tmp_path / "out", fake, status=1)
    assert "No document could be scored" in shown
    assert rows["fake.parquet"][0] == "failed"
    assert "1 failed:" in shown


def test_missing_input(score, tmp_path):
    shown, _ = score(tmp_path / "out", tmp_path / "nowhere", status=2)
    assert "nowhere does not exist" in shown.replace("- ", "")


def test_output_that_cannot_be_written(score, tmp_path, good):
    (tmp_path / "good.txt").write_text(good)
    shown, _ = score(tmp_path / "good.txt" / "out", tmp_path / "good.txt", status=2)
    assert "cannot be used as an output folder" in shown


def test_a_reader_that_is_no_model(run, tmp_path, corpus, model_folder):
    (tmp_path / "empty").mkdir()
    options = ("-o", tmp_path / "out", "--scorer", "strength")
    shown = run("score", corpus, *options, "--model", tmp_path / "empty", status=2)
    assert "no config.json" in shown
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "no-such-model"}')
    assert "no weights" in run("score", corpus, *options, "--model", broken, status=2)
    shutil.copy(model_folder / "model.safetensors", broken)
    assert "no-such-model" in run("score", corpus, *options, "--model", broken, status=2)
    assert not list((tmp_path / "out").glob("parts/*"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--scorer", "nonsense"), "no scorer 'nonsense'"),
        (("--pairs", "many"), "--pairs got 'many'"),
        (("--pairs=-1",), "--pairs got '-1'"),
    ],
)
def test_settings_that_make_no_sense(run, tmp_path, corpus, arguments, expected):
    assert expected in run("score", corpus, "-o", tmp_path / "out", *arguments, status=2)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("select", "{tmp}", "-o", "{tmp}/kept.jsonl"), "give --top FRACTION"),
        (("select", "{tmp}", "-o", "{tmp}/kept.jsonl", "--top", "0.5", "--tokens", "1"), "got both"),
        (("select", "{tmp}", "-o", "{tmp}/kept.jsonl", "--tokens", "ten"), "'ten'"),
        (("select", "{tmp}", "-o", "{tmp}/kept.jsonl", "--top", "0.5"), "no record.json"),
        (("pack", "{tmp}/nowhere", "-o", "{tmp}/shards", "--tokenizer", "{model}"), "does not exist"),
        (("pack", "{corpus}", "-o", "{tmp}/shards", "--tokenizer", "{tmp}"), "no tokenizer"),
        (("train", "{tmp}/nowhere.toml", "-o", "{tmp}/run"), "cannot be read"),
        (("train", "{model}/config.jsn", "-o", "{tmp}/run"), "Did you mean"),
        (("evaluate", "{tmp}/nowhere", "-o", "{tmp}/eval"), "does not exist"),
        (("evaluate", "{model}", "-o", "{tmp}/eval", "--tasks", "nonsense"), "There is no task 'nonsense'"),
        (("evaluate", "{model}", "-o", "{tmp}/eval", "--lengths", "long"), "--lengths got 'long'"),
        (("evaluate", "{model}", "-o", "{tmp}/eval", "--texts", "{tmp}/nowhere"), "does not exist"),
        (("evaluate", "{model}", "-o", "{tmp}/eval", "--device", "warp"), "cannot be used"),
        (("evaluate", "{model}", "-o", "{tmp}/eval", "--include-path", "{tmp}"), "without --lm-eval"),
        (("evaluate", "startr", "-o", "{tmp}/eval"), "Did you mean starter"),
        (
            ("score", "{corpus}", "-o", "{tmp}/s", "--scorer", "paper", "--model", "nope"),
            "There is no model 'nope'",
        ),
        (("score", "{corpus}", "-o", "{tmp}/s", "--seed", "-1"), "-1"),
        (("score", "{corpus}", "-o", "{tmp}/s", "--seed", "99999999999999999999"), "99999999999999999999"),
        (("score", "~$report.txt", "-o", "{tmp}/s", "--scorer", "gzip"), "does not exist"),
        (("generate", "{model}", "--prompt", "x", "--device", "tpu"), "expected auto, cpu"),
        (("generate", "{model}"), "needs one prompt"),
        (("generate", "{model}", "--prompt", ""), "prompt is empty"),
        (("generate", "{model}", "--prompt-file", "{tmp}/nowhere"), "cannot be read"),
        (("generate", "{tmp}", "--prompt", "x"), "no config.json"),
        (("generate", "{model}", "--prompt", "x", "--max-new-tokens", "0"), "got 0"),
        (("generate", "{model}", "--prompt", "x", "--state", "{tmp}/nowhere"), "cannot be read"),
        (
            ("generate", "{model}", "--prompt", "x", "--state", "{model}/model.safetensors"),
            "without the state",
        ),
        (("generate", "{model}", "--prompt", "x", "--save-state", "{model}"), "is a folder"),
        (("convert", "{model}", "{tmp}/there", "--to", "gguf"), "--to got 'gguf'"),
        (("convert", "{model}", "{corpus}", "--to", "fla"), "is not empty"),
        (("convert", "{tmp}/nowhere", "{tmp}/there", "--to", "fla"), "does not exist"),
        (("report", "{tmp}/nowhere"), "does not exist"),
        (("report", "{corpus}/../corpu"), "Did you mean"),
        (("help", "scor"), "Did you mean 'score'"),
        (("report", "{tmp}", "-o", "{tmp}/report.html"), "no record.json"),
        (("demo", "-o", "{tmp}/demo", "--minutes", "0"), "--minutes got 0"),
        (("demo", "-o", "{corpus}"), "is not empty"),
    ],
)
def test_every_command_says_what_is_wrong(run, tmp_path, corpus, model_folder, arguments, expected):
    places = {"tmp": tmp_path, "corpus": corpus, "model": model_folder}
    shown = run(*(argument.format(**places) for argument in arguments), status=2)
    assert expected in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "{model}", "--prompt", "e Z e Z"),
        (
            "evaluate",
            "{model}",
            "-o",
            "{tmp}/eval",
            "--tasks",
            "passkey",
            "--lengths",
            "256",
            "--num-examples",
            "2",
        ),
        ("score", "{corpus}", "-o", "{tmp}/scores", "--model", "{model}", "--scorer", "overlap"),
        ("pack", "{corpus}", "-o", "{tmp}/shards", "--tokenizer", "{model}"),
    ],
)
def test_a_token_id_that_the_model_cannot_have(run, tmp_path, corpus, model_folder, arguments):
    broken = tmp_path / "broken"
    shutil.copytree(model_folder, broken)
    fields = json.loads((broken / "tokenizer.json").read_text())
    vocabulary = fields["model"]["vocab"]
    vocabulary["e"] = 2**32 - 1
    (broken / "tokenizer.json").write_text(json.dumps(fields))
    places = {"tmp": tmp_path, "corpus": corpus, "model": broken}
    shown = run(*(argument.format(**places) for argument in arguments), status=2)
    assert "4,294,967,295" in shown
    assert "expected ids below" in shown
