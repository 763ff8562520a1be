"""No command replaces what it did not write: folders of another kind, other results, files of the user."""

import hashlib

import pytest

from longlode.core.records import read_record, write_record

RECIPE = """
[model]
mixers = "D"
hidden_size = 16
num_heads = 1
[data]
length = 32
batch_size = 2
heldout_fraction = 0.0
[run]
steps = 2
device = "cpu"
"""
EVALUATE = ("--tasks", "repeated_list", "--lengths", 256, "--num-examples", 2, "--device", "cpu")


@pytest.fixture(scope="module")
def scores(run, corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("scored") / "scores"
    run("score", corpus, "-o", out, "--scorer", "gzip")
    return out


@pytest.fixture(scope="module")
def shards(run, corpus, model_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "shards"
    run("pack", corpus, "-o", out, "--tokenizer", model_folder, "--length", 32)
    return out


@pytest.fixture
def commands(tmp_path, corpus, model_folder, scores, shards):
    """Every command that writes a folder, with the place of the folder last."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    return {
        "score": ("score", corpus, "--scorer", "gzip", "-o"),
        "pack": ("pack", corpus, "--tokenizer", model_folder, "--length", 32, "-o"),
        "train": ("train", recipe, "--set", f"data.shards={shards}", "-o"),
        "evaluate": ("evaluate", model_folder, *EVALUATE, "-o"),
        "convert": ("convert", model_folder, "--to", "fla"),
        "demo": ("demo", "-o"),
    }


def contents(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


WRITERS = ("score", "pack", "train", "evaluate", "convert", "demo")


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_of_another_kind_is_left_as_it_is(run, tmp_path, commands, name):
    other = tmp_path / "other"
    write_record(other, "selection", rule="precious")
    before = contents(other)
    shown = run(*commands[name], other, status=2)
    assert "a selection" in shown or "not empty" in shown
    assert contents(other) == before


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_of_other_files_is_left_as_it_is(run, tmp_path, commands, name):
    other = tmp_path / "other"
    other.mkdir()
    (other / "corpus.jsonl").write_text("precious")
    assert "corpus.jsonl" in run(*commands[name], other, status=2)
    assert [path.name for path in other.iterdir()] == ["corpus.jsonl"]


@pytest.mark.parametrize("name", ["score", "pack", "train", "evaluate"])
def test_another_result_of_the_same_kind_is_left_as_it_is(run, tmp_path, commands, name):
    kind = {"score": "scores", "pack": "shards", "train": "run", "evaluate": "evaluation"}[name]
    out = tmp_path / "out"
    write_record(out, kind, made="with other options")
    before = contents(out)
    advice = "--resume" if name == "train" else "--overwrite"
    assert advice in run(*commands[name], out, status=2)
    assert contents(out) == before


def test_scores_of_other_options_need_overwrite(run, corpus, tmp_path):
    out = tmp_path / "scores"
    command = ("score", corpus, "-o", out, "--scorer")
    run(*command, "gzip")
    before = contents(out)
    run(*command, "gzip")
    assert contents(out).keys() == before.keys()
    assert "scorer.name" in run(*command, "overlap", status=2)
    assert read_record(out, "scores")["scorer"]["name"] == "gzip"
    run(*command, "overlap", "--overwrite")
    assert read_record(out, "scores")["scorer"]["name"] == "overlap"


def test_scores_may_grow_by_an_input_but_not_lose_one(run, corpus, tmp_path, sources):
    out, extra = tmp_path / "scores", tmp_path / "extra"
    extra.mkdir()
    (extra / "one.txt").write_text(sources[0].read_text(encoding="utf-8")[:1200])
    run("score", corpus, "-o", out, "--scorer", "gzip")
    num = read_record(out, "scores")["num_documents"]
    run("score", corpus, extra, "-o", out, "--scorer", "gzip")
    assert read_record(out, "scores")["num_documents"] == num + 1
    assert "inputs" in run("score", extra, "-o", out, "--scorer", "gzip", status=2)


def test_an_evaluation_is_repeated_but_not_replaced(run, model_folder, tmp_path):
    out = tmp_path / "eval"
    command = ("evaluate", model_folder, "-o", out, *EVALUATE)
    run(*command)
    before = (out / "examples.parquet").read_bytes()
    run(*command)
    assert (out / "examples.parquet").read_bytes() == before
    shown = run(*command, "--seed", 1, status=2)
    assert "settings.seed: there 0, now 1" in shown
    assert (out / "examples.parquet").read_bytes() == before
    run(*command, "--seed", 1, "--overwrite")
    assert read_record(out, "evaluation")["settings"]["seed"] == 1


def test_another_model_of_the_same_name_is_another_evaluation(model_folder, tmp_path):
    import torch

    from longlode.core.errors import InputError
    from longlode.evaluate import evaluate
    from longlode.models import load

    model, tokenizer = load(model_folder)
    options = {"tasks": ["repeated_list"], "lengths": [256], "num_examples": 1, "name": "m"}
    evaluate(model, tokenizer, out=str(tmp_path / "eval"), **options)
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    with pytest.raises(InputError, match="model_fingerprint"):
        evaluate(model, tokenizer, out=str(tmp_path / "eval"), **options)


def test_a_report_replaces_a_report_and_no_other_file(run, scores, tmp_path):
    page = tmp_path / "report.html"
    run("report", scores, "-o", page)
    run("report", scores, "-o", page)
    precious = tmp_path / "corpus.jsonl"
    precious.write_text('{"text": "precious"}')
    assert "--overwrite" in run("report", scores, "-o", precious, status=2)
    assert precious.read_text() == '{"text": "precious"}'
    run("report", scores, "-o", precious, "--overwrite")
    assert "<html" in precious.read_text()


def test_a_state_replaces_the_state_it_went_on_from_and_no_other_file(run, model_folder, tmp_path):
    state, precious = tmp_path / "book.state", tmp_path / "corpus.jsonl"
    command = ("generate", model_folder, "--prompt", "def", "--max-new-tokens", 0, "--save-state")
    run(*command, state)
    first = state.read_bytes()
    assert "--overwrite" in run(*command, state, status=2)
    assert state.read_bytes() == first
    run(*command, state, "--state", state)
    assert state.read_bytes() != first
    precious.write_text("precious")
    assert "--overwrite" in run(*command, precious, status=2)
    assert precious.read_text() == "precious"
    run(*command, precious, "--overwrite")
    assert precious.read_bytes() != b"precious"


def test_a_selection_is_repeated_but_replaces_nothing_else(run, scores, tmp_path):
    kept, precious = tmp_path / "kept.jsonl", tmp_path / "corpus.jsonl"
    command = ("select", scores, "--top", 0.5, "-o")
    run(*command, kept)
    first = kept.read_bytes()
    run(*command, kept)
    assert kept.read_bytes() == first
    assert "--overwrite" in run("select", scores, "--top", 0.9, "-o", kept, status=2)
    assert kept.read_bytes() == first
    precious.write_text('{"text": "precious"}')
    assert "--overwrite" in run(*command, precious, status=2)
    assert precious.read_text() == '{"text": "precious"}'
    run(*command, precious, "--overwrite")
    assert precious.read_bytes() == first


def test_a_reader_names_the_right_folder_inside(run, tmp_path, scores):
    demo = tmp_path / "demo-out"
    write_record(demo, "demo")
    write_record(demo / "scores", "scores")
    shown = run("select", demo, "-o", tmp_path / "kept.jsonl", "--top", 0.5, status=2)
    assert "a demo" in shown
    assert "demo-out/scores" in shown.replace(" ", "")
