"""lm-eval: `longlode evaluate --lm-eval`, and its own command after importing longlode: equal numbers."""

import json
import re

import pytest

from peers import tiny
from peers.processes import run

PACKAGES = ("lm-eval", "transformers")
TASKS = ("peers_choice", "peers_rolling", "peers_write")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Three tasks of our own, one per kind of request; lm-eval's own come from the hub."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"text": text, "start": text[:40], "end": text[40:60], "other": text[60:80]}
        for text in tiny.texts(12)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    common = f"""
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder / "rows.jsonl"}
test_split: test
"""
    kinds = {
        "peers_choice": """
output_type: multiple_choice
doc_to_text: "{{start}}"
doc_to_choice: ["{{end}}", "{{other}}"]
doc_to_target: 0
metric_list: [{metric: acc}]
""",
        "peers_rolling": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}]
""",
        "peers_write": """
output_type: generate_until
doc_to_text: "{{start}}"
doc_to_target: "{{end}}"
generation_kwargs: {until: ["."], max_gen_toks: 12}
metric_list: [{metric: exact_match}]
""",
    }
    for name, kind in kinds.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}{common}{kind}")
    return folder


def numbers(reported):
    """task -> metric -> value of an lm-eval report, without its standard errors and names."""
    return {
        task: {
            metric: value
            for metric, value in found.items()
            if isinstance(value, float | int) and "stderr" not in metric
        }
        for task, found in reported["results"].items()
    }


def by_harness(start, model_folder, tasks, out):
    """Run lm-eval's own command line in a fresh process; `start` is how that process begins."""
    arguments = ["--model", "hf", "--model_args", f"pretrained={model_folder},dtype=float32"]
    arguments += [
        "--device",
        "cpu",
        "--tasks",
        ",".join(TASKS),
        "--include_path",
        tasks,
        "--output_path",
        out,
        "--batch_size",
        "4",
    ]
    run(*start, *arguments, cwd=out.parent)
    (written,) = out.rglob("results*.json")
    return numbers(json.loads(written.read_text()))


@pytest.fixture(scope="module")
def by_longlode(model_folder, tasks, tmp_path_factory):
    """What `longlode evaluate --lm-eval` finds."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    arguments = ["--lm-eval", ",".join(TASKS), "--include-path", tasks, "--device", "cpu"]
    run("-m", "longlode", "evaluate", model_folder, "-o", out, *arguments)
    return numbers(json.loads((out / "lm_eval.json").read_text()))


def test_our_command(by_longlode):
    assert set(by_longlode) == set(TASKS)
    assert 0 <= by_longlode["peers_choice"]["acc,none"] <= 1
    assert 0 < by_longlode["peers_rolling"]["bits_per_byte,none"] < 20


def test_their_command_as_the_model_card_gives_it(by_longlode, model_folder, tasks, tmp_path):
    card = (model_folder / "README.md").read_text()
    (program,) = re.findall(r'python -c "(import longlode; from lm_eval[^"]*)" run ', card)
    found = by_harness(["-c", program, "run"], model_folder, tasks, tmp_path / "out")
    assert found == {task: pytest.approx(values, rel=1e-5) for task, values in by_longlode.items()}


def test_their_plain_command_does_not_know_the_architecture(model_folder, tasks, tmp_path):
    """Nothing imports longlode there. Should this ever pass, the model card and docs/cli.md can be shorter."""
    with pytest.raises(AssertionError, match="model type `longlode`"):
        by_harness(["-m", "lm_eval", "run"], model_folder, tasks, tmp_path / "out")
