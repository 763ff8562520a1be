"""Each command alone, in the order of work, on a tiny untrained model."""

import json
import pickle

import pytest

from longlode import __version__
from longlode.api.readers import load_reader
from longlode.cli.console import plain
from longlode.core.records import read_json, read_jsonl, read_record
from longlode.core.rows import read_rows

RECIPE = """
[model]
mixers = "D*2"
hidden_size = 32
num_heads = 2
[data]
length = 64
batch_size = 2
[run]
steps = 3
checkpoint_every = 2
device = "cpu"
"""


@pytest.fixture(scope="module")
def score(run, corpus, model_folder):
    """Run `longlode score` on the corpus with every pair kept."""
    options = (
        "--model",
        model_folder,
        "--scorer",
        "paper",
        "--segment",
        32,
        "--pairs",
        "all",
        "--keep-pairs",
    )
    return lambda out: run("score", corpus, "-o", out, *options)


@pytest.fixture(scope="module")
def scores(score, tmp_path_factory):
    out = tmp_path_factory.mktemp("scored") / "scores"
    assert "Next: longlode select" in score(out)
    return out


def test_a_setting_without_effect_is_said(run, corpus, tmp_path):
    assert "--pairs 7 has no effect" in run(
        "score", corpus, "-o", tmp_path / "a", "--scorer", "gzip", "--pairs", 7
    )
    assert "--model other has no effect" in run(
        "score", corpus, "-o", tmp_path / "c", "--scorer", "gzip", "--model", "other"
    )
    assert "has no effect" not in run("score", corpus, "-o", tmp_path / "b", "--scorer", "gzip")


def test_version(run):
    assert run("--version") == f"longlode {__version__}"


def test_help_lists_the_commands(run):
    shown = run("--help")
    for name in (
        "score",
        "select",
        "pack",
        "train",
        "evaluate",
        "generate",
        "explain",
        "report",
        "demo",
        "doctor",
    ):
        assert name in shown


@pytest.mark.parametrize(
    "name",
    [
        "score",
        "select",
        "pack",
        "train",
        "evaluate",
        "generate",
        "convert",
        "explain",
        "report",
        "demo",
        "doctor",
    ],
)
def test_help_teaches_by_examples(run, name):
    shown = run(name, "--help")
    assert "Examples" in shown
    assert shown.count(f"longlode {name}") >= 2


def test_score_again_reuses_its_parts(score, scores):
    before = sorted(path.name for path in (scores / "parts").iterdir())
    score(scores)
    assert sorted(path.name for path in (scores / "parts").iterdir()) == before
    assert read_record(scores, "scores")["num_reused"] == len(before)


def test_explain_maps_the_ends_of_the_ranking(scores):
    maps = read_json(scores / "explain.json")
    assert [one["label"] for one in maps] == ["best", "best", "worst", "worst"]
    assert maps[0]["score"] >= maps[1]["score"] > maps[-1]["score"]
    for one in maps:
        num_segments = len(one["segments"])
        assert len(one["pairs"]) == num_segments * (num_segments - 1) // 2
        assert all(j < i < num_segments for i, j, _, _ in one["pairs"])


def test_explain_agrees_with_the_stored_pairs(scores):
    import pyarrow.parquet as pq

    rows = [row for part in (scores / "parts").glob("*.parquet") for row in pq.read_table(part).to_pylist()]
    stored = {row["id"]: row for row in rows}
    for one in read_json(scores / "explain.json"):
        gains = {(i, j): gain for i, j, _, gain in one["pairs"]}
        for pair in stored[one["id"]]["pairs"]:
            expected = pair["nll_alone"] - pair["nll_given"]
            assert gains[pair["i"], pair["j"]] == pytest.approx(expected, abs=2e-4)


def test_work_in_order(run, scores, tmp_path, model_folder, corpus):
    kept, shards, run_folder = tmp_path / "kept.jsonl", tmp_path / "shards", tmp_path / "run"
    shown = run("select", scores, "-o", kept, "--top", 0.5)
    assert "Next: longlode pack" in shown
    assert (
        len(read_jsonl(kept)) == read_json(tmp_path / "__selection__/kept.jsonl/record.json")["num_selected"]
    )

    run("pack", kept, "-o", shards, "--tokenizer", model_folder, "--length", 64)
    run("pack", kept, "-o", shards, "--tokenizer", model_folder, "--length", 64, status=2)
    again = ("--length", 64, "--overwrite", "--mix", "rest=1")
    assert "Mixture" in run("pack", kept, "-o", shards, "--tokenizer", model_folder, *again)

    (tmp_path / "recipe.toml").write_text(RECIPE)
    train = ("train", tmp_path / "recipe.toml", "-o", run_folder, "--set", f"data.shards={shards}")
    # A split that holds nothing out is refused before the first step, not after the last one.
    assert "heldout documents have 0 tokens" in run(*train, "--set", "data.heldout_fraction=1e-9", status=2)
    assert not run_folder.exists()
    run(*train[:-2], status=2)
    shown = " ".join(run(*train).split())
    assert "finished" in shown
    num_parameters = read_record(run_folder, "run")["num_parameters"]
    for fact in (
        f"{num_parameters:,} parameters on cpu",
        "3 steps of",
        "Packer concat",
        "mean context",
        "tokens per second",
    ):
        assert fact in shown
    assert read_record(run_folder, "run")["data"]["packing"]["padding_tokens"] == 0
    assert len(read_jsonl(run_folder / "metrics.jsonl")) == 3
    run(*train, status=2)
    shown = run("train", "-o", run_folder, "--set", "run.steps=4", "--resume")
    assert "Resumed from step 3" in shown
    assert "Verifying" not in shown
    assert "No recipe was given" in run("train", "-o", tmp_path / "nowhere", "--resume", status=2)
    assert "No recipe was given" in run("train", "-o", tmp_path / "nowhere", status=2)
    shown = " ".join(
        run(*train, "--set", "run.steps=5", "--set", "optim.warmup_steps=9", "--resume", status=2).split()
    )
    assert "the one that the run began with" in shown
    assert "optim.warmup_steps" in shown

    evaluation = ("evaluate", run_folder, "-o", tmp_path / "eval", "--lengths", 128, "--num-examples", 3)
    assert "nats/token" in run(*evaluation, "--tasks", "loss_by_position", "--texts", corpus)
    assert read_record(tmp_path / "eval", "evaluation")["model"] == str(run_folder)
    run("report", scores, tmp_path, "-o", tmp_path / "report.html")
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_train_prints_its_keys_and_warns_of_a_warmup_that_never_ends(run, tmp_path, model_folder, corpus):
    shown = run("train", "--list-keys")
    for name in ("model.hidden_size", "data.packer", "optim.lr", "run.seed"):
        assert name in shown
    shards = tmp_path / "shards"
    run("pack", corpus, "-o", shards, "--tokenizer", model_folder, "--length", 64)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    train = ("train", tmp_path / "recipe.toml", "--set", f"data.shards={shards}", "-o")
    assert "never reaches lr" in " ".join(
        run(*train, tmp_path / "a", "--set", "optim.warmup_steps=3").split()
    )
    assert "never reaches" not in run(*train, tmp_path / "b", "--set", "optim.warmup_steps=2")


@pytest.mark.parametrize("packer", ["truncate", "best_fit", "decompose", "masked"])
def test_every_packer_trains(run, tmp_path, model_folder, corpus, packer):
    shards = tmp_path / "shards"
    run("pack", corpus, "-o", shards, "--tokenizer", model_folder, "--length", 64)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    train = (
        "train",
        tmp_path / "recipe.toml",
        "--set",
        f"data.shards={shards}",
        "--set",
        f"data.packer={packer}",
    )
    shown = run(*train, "-o", tmp_path / "run", "--set", "data.packed=true")
    assert f"Packer {packer}" in shown
    assert "finished" in shown
    refused = run(*train, "-o", tmp_path / "other", "--set", "data.packer_options={sizes=3}", status=2)
    assert "no option 'sizes'" in " ".join(refused.split())


def test_damaged_shards_are_not_trained_on(run, tmp_path, model_folder, corpus):
    shards, run_folder = tmp_path / "shards", tmp_path / "run"
    run("pack", corpus, "-o", shards, "--tokenizer", model_folder, "--length", 64)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    train = ("train", tmp_path / "recipe.toml", "-o", run_folder, "--set", f"data.shards={shards}")
    tokens = shards / "tokens-00000.bin"
    sound = tokens.read_bytes()
    tokens.write_bytes(sound[:100] + bytes(8) + sound[108:])
    assert "tokens-00000.bin is not what was packed" in " ".join(run(*train, status=2).split())
    assert "finished" in run(*train, "--no-verify")
    assert not read_record(run_folder, "run")["data"]["verified"]
    # Never verified: the first session that may is the first that does.
    run(*train, "--resume", status=2)
    tokens.write_bytes(sound)
    assert "Verifying" in run(*train, "--resume")
    assert read_record(run_folder, "run")["data"]["verified"]
    assert "Verifying" not in run(*train, "--resume")
    assert "Verifying" in run(*train, "--resume", "--verify")


def test_two_models_are_compared(run, tmp_path, model_folder):
    options = ("--tasks", "repeated_list", "--lengths", 256, "--num-examples", 3, "--device", "cpu")
    for name, model in (("a", model_folder), ("b", "starter")):
        run("evaluate", model, "-o", tmp_path / name, *options)
    assert "different examples" in run("compare", tmp_path / "a", tmp_path / "b", status=2)
    run("evaluate", model_folder, "-o", tmp_path / "c", *options, "--overwrite")
    shown = run("compare", tmp_path / "a", tmp_path / "c")
    assert "differences, 0 of them beyond chance" in shown
    assert json.loads(run("compare", tmp_path / "a", tmp_path / "c", "--json"))["rows"]
    assert "no record.json" in run("compare", tmp_path, tmp_path / "a", status=2)


def test_evaluate_without_texts_says_what_it_leaves_out(run, tmp_path, model_folder):
    shown = run("evaluate", model_folder, "-o", tmp_path / "eval", "--lengths", 256, "--num-examples", 2)
    assert "left out: context_curve, loss_by_position" in " ".join(shown.split())
    tasks = {row["task"] for row in read_rows(tmp_path / "eval" / "examples.parquet")}
    assert tasks == {"passkey", "repeated_list", "recall"}


def test_generate_writes_what_the_model_would(run, model_folder):
    from longlode.models import load

    model, tokenizer = load(model_folder)
    prompt = tokenizer("def main(", return_tensors="pt", return_token_type_ids=False)
    expected = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    shown = run("generate", model_folder, "--prompt", "def main(", "--max-new-tokens", 8)
    assert " ".join(plain(tokenizer.decode(expected)).split()) in shown
    first = run(
        "generate", model_folder, "--prompt", "x", "--temperature", 1, "--seed", 3, "--max-new-tokens", 12
    )
    again = run(
        "generate", model_folder, "--prompt", "x", "--temperature", 1, "--seed", 3, "--max-new-tokens", 12
    )
    assert first.partition(" tokens after")[0] == again.partition(" tokens after")[0]


def test_generate_reads_the_prompt_from_a_file(run, model_folder, tmp_path):
    (tmp_path / "prompt.txt").write_text("def main(")
    run("generate", model_folder, "--prompt-file", tmp_path / "prompt.txt", "--max-new-tokens", 2)


def test_generate_goes_on_from_a_saved_state(run, model_folder, sources, tmp_path):
    text = sources[0].read_text(encoding="utf-8")[:4000]
    cut = text.index("\n", 3000)
    (tmp_path / "whole.txt").write_text(text, encoding="utf-8")
    (tmp_path / "start.txt").write_text(text[:cut], encoding="utf-8")
    state, command = tmp_path / "start.state", ("generate", model_folder, "--max-new-tokens")
    read = ("--prompt-file", tmp_path / "start.txt", "--save-state", state)
    assert "State after" in run(*command, 0, *read)
    first = state.read_bytes()
    written = run(*command, 12, *read, "--overwrite").partition("State after")[2]
    assert state.read_bytes() == first
    assert written
    resumed = run(*command, 12, "--state", state, "--prompt", text[cut:])
    whole = run(*command, 12, "--prompt-file", tmp_path / "whole.txt")
    story = resumed.partition(str(state))[2].strip().rpartition(" tokens read in")[0]
    assert story.rpartition(" ")[0] == whole.rpartition(" tokens read in")[0].rpartition(" ")[0]
    again = tmp_path / "again.state"
    run(*command, 0, "--state", state, "--prompt", text[cut:], "--save-state", again)
    assert again.stat().st_size == state.stat().st_size


def test_generate_probes_the_states(run, model_folder, sources, tmp_path):
    probe, command = tmp_path / "states.json", ("generate", model_folder, "--prompt-file", sources[0])
    wanted = ("--probe-states", probe, "--max-new-tokens", 0)
    assert "positions" in run(*command, *wanted)
    found = read_json(probe)
    assert found["positions"][0] == 16
    assert all(len(one["rank"]) == len(found["positions"]) == len(found["loss"]) for one in found["states"])
    assert "--overwrite" in run(*command, *wanted, status=2)
    assert "--state" in run(*command, *wanted, "--overwrite", "--state", tmp_path / "x", status=2)


def test_convert_to_fla_and_back(run, model_folder, tmp_path):
    from longlode.models import load

    there, back = tmp_path / "fla", tmp_path / "back"
    assert "parameters in torch.float32" in run("convert", model_folder, there, "--to", "fla")
    assert read_json(there / "config.json")["model_type"] == "delta_net"
    run("convert", there, back, "--to", "longlode")
    assert read_json(back / "config.json")["model_type"] == "longlode"
    (want, tokenizer), (got, same) = load(model_folder), load(back)
    assert tokenizer("def main(")["input_ids"] == same("def main(")["input_ids"]
    for name, value in want.state_dict().items():
        assert (got.state_dict()[name] == value).all(), name
    (there / "tokenizer.json").unlink()
    (there / "tokenizer_config.json").unlink()
    assert "No tokenizer will be written" in run("convert", there, tmp_path / "bare", "--to", "longlode")


def test_a_field_of_another_name(run, tmp_path, model_folder, sources):
    records = tmp_path / "records.jsonl"
    text = sources[0].read_text(encoding="utf-8")[:1500]
    records.write_text(json.dumps({"id": "a", "content": text}) + "\n")
    options = ("--model", model_folder, "--scorer", "gzip", "--text-field", "content")
    run("score", records, "-o", tmp_path / "scores", *options)
    assert read_record(tmp_path / "scores", "scores")["counts"] == {"ok": 1}


@pytest.mark.parametrize("name", ["coherence", "release", "strength", "context_gain", "overlap"])
def test_every_scorer_works_with_a_real_model(run, tmp_path, corpus, model_folder, name):
    options = ("--model", model_folder, "--scorer", name, "--segment", 32, "--pairs", 10, "--no-explain")
    run("score", corpus, "-o", tmp_path / "scores", *options)
    record = read_record(tmp_path / "scores", "scores")
    assert record["counts"] == {"ok": record["num_documents"]}
    assert (record["cost"]["tokens_read_per_token"] == 0) == (name == "overlap")


def test_two_workers_give_the_parts_of_one(run, tmp_path, corpus):
    for workers in (1, 2):
        options = ("--scorer", "gzip", "--rows-per-unit", 2, "--workers", workers)
        run("score", corpus, "-o", tmp_path / str(workers), *options)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "parts").iterdir()} for name in "12"
    )
    assert one == two
    assert len(one) > 1


def test_workers_get_a_reader_of_their_own(model_folder):
    here, make_reader = load_reader(str(model_folder), 32, workers=2)
    assert pickle.loads(pickle.dumps(make_reader))().fingerprint == here.fingerprint
    alone, make_reader = load_reader(str(model_folder), 32, workers=1)
    assert make_reader() is alone


def test_doctor(run):
    shown = run("doctor")
    assert "chunkwise usable" in shown
    assert "bfloat16 on the CPU" in shown
