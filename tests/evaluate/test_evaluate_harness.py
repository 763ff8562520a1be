"""lm-eval's tasks on our models, offline: through `longlode evaluate --lm-eval`, and through lm-eval's own command."""

import json
import os
import random
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from longlode.core.errors import BackendError
from longlode.core.records import read_json, read_record
from longlode.corpus import train_bpe
from longlode.evaluate import run_harness
from longlode.models import LonglodeConfig, LonglodeForCausalLM

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
