"""Stacks of four layers beside four of DeltaNet: what each learns, and the time of a training step.

    python -m benchmarks.stacks --work DIR --texts FOLDER [--tasks text,in_context_language,joint_recall] [--seeds 3]
        [--only accuracy|speed|page] [--save]

Models of about equal parameters, with the budgets of `benchmarks.mixers` and nothing in front of the stack; each stack
has the better of two learning rates on each task, by rows that are not reported. "Better" asks every seed of
a stack to be better than every seed of `D*4`. A step: forward and backward of one row of 2,048 tokens, width 128, one
thread, the best of some rounds in which all stacks take turns.

Each model is kept in DIR, which may be that of `benchmarks.mixers`; a run that was stopped goes on.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch

from benchmarks.claims.frame import HOLDS, ordered
from benchmarks.claims.trained import cell, models, values
from benchmarks.mixers_accuracy import task_of, text_rows
from benchmarks.mixers_cost import step_seconds
from benchmarks.saved import about, save
from longlode.core.records import read_json, write_json
from longlode.evaluate.bench import ROW_TASKS
from longlode.mixers import LETTERS
from longlode.models import LonglodeConfig, LonglodeModel

_FIRST = "D*4"
_NGRAM = {"layers": 3, "front": "ngram_head"}
STACKS: dict[str, tuple[str, dict[str, Any]]] = {
    _FIRST: ("delta_net", {}),
    "M*4": ("mamba2", {}),
    "n-gram head, D*3": ("delta_net", _NGRAM),
    "n-gram head, M*3": ("mamba2", _NGRAM),
    "MD*2": ("MDMD", {}),
}
"""Stack -> its mixer or its letters, and settings beside those that all have."""

_LENGTH = 2048
_TIMES = "stacks.json"


def changes(stack: str, task: str) -> dict[str, Any]:
    """Settings by which the model of a stack differs from one of the mixers' table."""
    parameters = 64 * task_of(task).vocabulary + 4 * 36_000
    return {"layers": 4, "front": None, "parameters": parameters} | STACKS[stack][1]


def learnt(options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Task -> stack -> a number per seed: bits per byte of text, otherwise the share right."""
    found: dict[str, dict[str, list[float]]] = {}
    for task in options.tasks:
        found[task] = {}
        for stack, (mixer, _) in STACKS.items():
            trained = models(options, task, mixer, **changes(stack, task))
            nats = task == "text"
            numbers = values(trained, of="loss" if nats else "accuracy")
            found[task][stack] = [one / math.log(2) for one in numbers] if nats else numbers
    return found


def model_of(stack: str) -> LonglodeModel:
    """A model of width 128 with the layers of a stack and random weights, to be timed."""
    mixer, settings = STACKS[stack]
    layers: list[Any] = (
        [LETTERS[letter] for letter in mixer] if mixer.isupper() else [mixer] * settings.get("layers", 4)
    )
    if front := settings.get("front"):
        layers = [{"mixer": front, "block": "mixer"}, *layers]
    torch.manual_seed(0)
    return LonglodeModel(LonglodeConfig(vocab_size=256, hidden_size=128, num_heads=2, layers=layers))


def measure(options: argparse.Namespace) -> None:
    """Add rounds of step times to the record, in which the stacks take turns."""
    path = options.work / _TIMES
    known: dict[str, list[float]] = read_json(path) if path.is_file() else {}
    timed = {stack: model_of(stack) for stack in STACKS}
    for _ in range(options.rounds):
        for stack, model in timed.items():
            known.setdefault(stack, []).append(step_seconds(model, _LENGTH))
            write_json(path, known)


def verdict(task: str, stack: str, found: dict[str, list[float]]) -> str:
    """ "better" or "worse" where every seed is, than every seed of the first stack; "" otherwise."""
    sign = -1 if task == "text" else 1
    this, first = ([sign * one for one in found[name]] for name in (stack, _FIRST))
    if stack == _FIRST or not this or not first:
        return ""
    if ordered(this, first) == HOLDS:
        return ", better"
    return ", worse" if ordered(first, this) == HOLDS else ""


def table(options: argparse.Namespace, found: dict[str, Any], times: dict[str, list[float]]) -> str:
    """The result as Markdown."""
    heads = ["text, bits per byte" if task == "text" else f"{task}, share right" for task in options.tasks]
    lines = ["| stack | " + " | ".join(heads) + " | step, of that of `D*4` |"]
    lines.append("|" + "---|" * (len(heads) + 2))
    for stack in STACKS:
        cells = [cell(found[task][stack]) + verdict(task, stack, found[task]) for task in options.tasks]
        share = min(times[stack]) / min(times[_FIRST]) if times else None
        lines.append(
            f"| `{stack}` | " + " | ".join([*cells, "–" if share is None else f"{share:.2f}"]) + " |"
        )
    return "\n".join(lines)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line, and make the text task of its files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True, help="folder of text files")
    parser.add_argument("--tasks", default="text,in_context_language,joint_recall")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("accuracy", "speed", "page"), help="unset: everything")
    parser.add_argument("--save", action="store_true", help="write a dated page to benchmarks/results/")
    options = parser.parse_args(arguments)
    options.tasks = options.tasks.split(",")
    options.only_records = options.only in ("speed", "page")
    ROW_TASKS["text"] = text_rows(options.texts)
    return options


def main() -> None:
    """Train and measure what is asked for and missing, then print the page."""
    options = parsed()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    found = learnt(options)
    if options.only in (None, "speed"):
        measure(options)
    path = options.work / _TIMES
    times = read_json(path) if path.is_file() else {}
    text = table(options, found, times)
    print(text)
    if options.save:
        result = about("stacks")
        result["command"] = f"python -m benchmarks.stacks --work DIR --texts FOLDER --seeds {options.seeds}"
        head = "# Stacks of four layers beside four of DeltaNet"
        made = f"`{result['command']}`, {result['machine']}, {options.seeds} seeds."
        about_it = (
            "In brackets the least and the greatest seed. Better, worse: every seed is, than every seed of `D*4`. "
            "About equal parameters, width 64, nothing in front; a step: a row of 2,048 tokens, width 128, one thread."
        )
        save("stacks", result | {"learnt": found, "times": times}, "\n\n".join((head, made, about_it, text)))


if __name__ == "__main__":
    main()
