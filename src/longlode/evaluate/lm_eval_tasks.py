"""Tasks of longlode as YAML tasks of lm-evaluation-harness, for `lm_eval --include_path`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from longlode.core.errors import ConfigError
from longlode.core.outputs import claim_folder
from longlode.core.records import atomic_path, write_record
from longlode.evaluate.run import example_seed
from longlode.evaluate.surprisal import make_encode
from longlode.evaluate.tasks import Task

ROWS_MODULE = "longlode_rows"
GROUP = "longlode"
_MODULE = '''"""Rows of the tasks in this folder, one .jsonl file each; written by longlode."""

import json
import pathlib

from datasets import Dataset


def _rows(name):
    def dataset(**_):
        lines = (pathlib.Path(__file__).parent / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        return {"test": Dataset.from_list([json.loads(line) for line in lines])}

    return dataset


'''
_TASK = """\
# longlode: {about}
task: {name}
tag: {group}
custom_dataset: !function {module}.{name}
output_type: loglikelihood
test_split: test
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{target}}}}"
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: perplexity
    aggregation: perplexity
    higher_is_better: false
metadata:
  version: 1.0
"""


def write_lm_eval_tasks(
    tasks: Sequence[Task],
    tokenizer: Any,
    *,
    lengths: Sequence[int],
    out: str | os.PathLike[str],
    num_examples: int = 50,
    seed: int = 0,
    texts: Sequence[str] = (),
    overwrite: bool = False,
) -> list[str]:
    """Write a folder for `lm_eval --include_path`: a YAML file, and a file of rows, per task and length.

    The examples are those of `evaluate` with the same arguments. lm-eval reads the whole target after the prompt: its
    `acc` is 1 where greedy decoding writes all of it (`exact` here), its `perplexity` is of the target. The tag
    `longlode` stands for all of them.

    Args: tokenizer, makes lengths token lengths; the others as of `evaluate`.
    Returns: the names of the tasks, `TASK_LENGTH`.
    Raises: ConfigError for a task that a prompt and a target cannot hold; InputError as of `claim_folder`.
    """
    for task in tasks:
        if task.curve is not None:
            raise ConfigError(
                f"task {task.name!r} scores positions along a text, which a prompt and a target cannot hold; leave it "
                "out."
            )
    asked = {"tasks": [task.name for task in tasks], "lengths": [*lengths], "settings": {"seed": seed}}
    folder = claim_folder(out, "lm_eval_tasks", identity=asked, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for task in tasks:
        bound = task.bound_to(make_encode(tokenizer), texts)
        for length in lengths:
            rows = [
                _row(bound, length, example_seed(seed, number))
                for number in range(bound.num_available(length, num_examples))
            ]
            if not rows:
                continue
            name = f"{task.name}_{length}"
            _write(folder / f"{name}.jsonl", b"".join(orjson.dumps(row) + b"\n" for row in rows))
            about = " ".join(task.about.split())
            text = _TASK.format(about=about, name=name, group=GROUP, module=ROWS_MODULE)
            _write(folder / f"{name}.yaml", text.encode())
            names.append(name)
    if not names:
        raise ConfigError(
            f"No task has an example of {', '.join(map(str, lengths))} tokens; ask for longer ones."
        )
    module = _MODULE + "".join(f'{name} = _rows("{name}")\n' for name in names)
    _write(folder / f"{ROWS_MODULE}.py", module.encode())
    write_record(folder, "lm_eval_tasks", **asked, names=names)
    return names


def _row(task: Task, length: int, seed: int) -> dict[str, Any]:
    example = task.make(length, seed)
    return {"prompt": example.prompt, "target": example.target, "depth": example.meta.get("depth")}


def _write(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
