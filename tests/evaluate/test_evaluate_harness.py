"""lm-eval's tasks on our models, offline: through `longlode evaluate --lm-eval`, and through lm-eval's own command."""

import json
import os
import random
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from longlode.core.errors import BackendError, ConfigError
from longlode.core.records import read_json, read_jsonl, read_record
from longlode.corpus import train_bpe
from longlode.evaluate import TASKS, by_name, run_harness
from longlode.evaluate.run import example_seed
from longlode.evaluate.surprisal import make_encode
from longlode.models import LonglodeConfig, LonglodeForCausalLM, load
from longlode.models.load import load_tokenizer

needs_lm_eval = pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed")
WORDS = ("apple", "river", "stone", "cloud", "seven", "green")
TASK = """
task: which_word
custom_dataset: !function rows.dataset
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
ROWS = """
import json, pathlib
from datasets import Dataset
def dataset(**_):
    return {"test": Dataset.from_list(json.loads((pathlib.Path(__file__).parent / "rows.json").read_text()))}
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """(model folder, task folder, accuracy that the model must have, by a forward pass of our own)."""
    model_folder, task_folder = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("tasks")
    tokenizer = train_bpe([" ".join(WORDS) * 50], 300)
    tokenizer.save(model_folder)
    torch.manual_seed(0)
    config = LonglodeConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, mixers="DS", num_heads=2, initializer_range=0.3
    )
    model = LonglodeForCausalLM(config).eval()
    model.save_pretrained(model_folder)
    rng, rows, right = random.Random(0), [], 0
    for _ in range(12):
        question, choices = " ".join(rng.choices(WORDS, k=8)), rng.sample(WORDS, 3)
        answer = rng.randrange(3)
        rows.append({"question": question, "choices": choices, "answer": answer})
        likelihoods = []
        for choice in choices:
            start, whole = (tokenizer.encode([text])[0] for text in (question, f"{question} {choice}"))
            assert whole[: len(start)] == start
            log_probs = model(torch.tensor([whole])).logits[0].log_softmax(-1).detach()
            likelihoods.append(sum(float(log_probs[t - 1, whole[t]]) for t in range(len(start), len(whole))))
        right += max(range(3), key=likelihoods.__getitem__) == answer
    assert 0 < right < 12
    (task_folder / "rows.json").write_text(json.dumps(rows))
    (task_folder / "rows.py").write_text(ROWS)
    (task_folder / "which_word.yaml").write_text(TASK)
    return model_folder, task_folder, right / 12


def launch(program, *arguments):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@needs_lm_eval
def test_longlode_evaluate_runs_its_tasks(places, tmp_path):
    model_folder, task_folder, accuracy = places
    command = (
        "evaluate",
        model_folder,
        "-o",
        tmp_path,
        "--lm-eval",
        "which_word",
        "--include-path",
        task_folder,
    )
    assert "which_word" in launch("from longlode.cli import main; main()", *command, "--device", "cpu")
    row = next(row for row in read_record(tmp_path, "lm_eval")["summary"] if row["metric"] == "acc")
    assert (row["task"], row["value"], row["n"]) == ("which_word", pytest.approx(accuracy), 12)
    assert read_json(tmp_path / "lm_eval.json")["results"]["which_word"]["acc,none"] == row["value"]


@needs_lm_eval
@pytest.mark.slow
def test_lm_evals_own_command_finds_our_models(places, tmp_path):
    model_folder, task_folder, accuracy = places
    program = "import longlode; from lm_eval.__main__ import cli_evaluate; cli_evaluate()"
    given = ("--model_args", f"pretrained={model_folder},backend=causal", "--tasks", "which_word")
    options = ("--include_path", task_folder, "--device", "cpu", "--output_path", tmp_path / "out")
    launch(program, "run", "--model", "hf", *given, *options)
    (found,) = (tmp_path / "out").rglob("results*.json")
    assert json.loads(found.read_text())["results"]["which_word"]["acc,none"] == pytest.approx(accuracy)


def test_without_lm_eval_the_pip_line_is_shown(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(BackendError, match=r"pip install lm-eval"):
        run_harness(None, None, tasks=["x"], out=tmp_path)


def test_our_tasks_are_written_for_lm_eval(places, tmp_path):
    model_folder, _, _ = places
    names = by_name.write_tasks(
        model_folder,
        tmp_path / "tasks",
        tasks=["parity", "mqar"],
        lengths=[600, 900],
        num_examples=3,
        seed=2,
    )
    assert names == ["parity_600", "parity_900", "mqar_600", "mqar_900"]
    task = TASKS.get("mqar")().bound_to(make_encode(load_tokenizer(model_folder)))
    rows = read_jsonl(tmp_path / "tasks" / "mqar_600.jsonl")
    assert len(rows) == 3
    for number, row in enumerate(rows):
        example = task.make(600, example_seed(2, number))
        assert (row["prompt"], row["target"]) == (example.prompt, example.target)
    text = (tmp_path / "tasks" / "mqar_600.yaml").read_text()
    assert "!function longlode_rows.mqar_600" in text
    assert 'mqar_600 = _rows("mqar_600")' in (tmp_path / "tasks" / "longlode_rows.py").read_text()
    with pytest.raises(ConfigError, match="curve"):
        by_name.write_tasks(
            model_folder, tmp_path / "x", tasks=["context_curve"], texts=[__file__], lengths=[600]
        )


@needs_lm_eval
def test_lm_eval_reads_our_tasks_and_finds_our_scores(places, tmp_path):
    model_folder, _, _ = places
    names = by_name.write_tasks(
        model_folder, tmp_path / "tasks", tasks=["parity"], lengths=[300], num_examples=6
    )
    found = by_name.evaluate_harness(
        model_folder,
        tmp_path / "theirs",
        tasks=names,
        include_path=tmp_path / "tasks",
        max_length=512,
        device="cpu",
    )
    ours = by_name.evaluate_model(
        model_folder, tmp_path / "ours", tasks=["parity"], lengths=[300], num_examples=6, device="cpu"
    )
    theirs = {row["metric"]: row["value"] for row in found["summary"]}
    mine = {row["metric"]: row["mean"] for row in ours["summary"]}
    assert theirs["acc"] == pytest.approx(mine["exact"])
    network, tokenizer = load(model_folder)
    sums = []
    for row in read_jsonl(tmp_path / "tasks" / "parity_300.jsonl"):
        start, whole = (
            tokenizer(text)["input_ids"] for text in (row["prompt"], row["prompt"] + row["target"])
        )
        log_probs = network(torch.tensor([whole])).logits[0].log_softmax(-1).detach()
        sums.append(sum(float(log_probs[t - 1, whole[t]]) for t in range(len(start), len(whole))))
    assert np.log(theirs["perplexity"]) == pytest.approx(-np.mean(sums), rel=1e-4)
