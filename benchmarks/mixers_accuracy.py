"""What mixers learn: the budget of each task of the table, the order of the trainings, and their summary."""

import dataclasses
import random
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.base_conv import BASE_CONV
from longlode.evaluate.bench import (
    ROW_TASKS,
    BenchSettings,
    Rows,
    RowTask,
    summary,
    train_model,
    trained_model,
    with_best_rate,
)

PAPER = (
    "delta_net",
    "attention",
    "gated_delta_net",
    "gated_linear_attention",
    "mamba2",
    "linear_attention",
)
"""The mixers that the DeltaNet paper compares; trained first."""

TASKS = ("mqar", "overwrite", "text", "parity", "in_context_language", "mqar_128", "joint_recall")
SHARE_OF_STEPS = {"atlas": 0.4}
"""Slow mixer -> the share of a task's steps that it is trained for; trained only where it is named."""

_TEXT_SUFFIXES = (".txt", ".md", ".py", ".rst")
_LEAST_BYTES = 4096
_HELDOUT = 5  # every fifth file


class TextRows(RowTask):
    """Bytes of text files, every next one predicted; every fifth file is held out for the test."""

    name = "text"
    about = "the next byte of text"
    vocabulary = 256
    chance = 1 / 256
    train_lengths = test_lengths = (512,)
    source = "files of the user's own"
    files: list[bytes] = []  # noqa: RUF012 - a subclass has some, see `text_rows`

    def row(self, rng: np.random.Generator, length: int, heldout: bool = False) -> tuple[np.ndarray, ...]:
        """A window of a file that is held out, or of one that is not."""
        if not self.files:
            raise SystemExit("The task text, on which learning rates are chosen, needs --texts FOLDER.")
        files = [one for k, one in enumerate(self.files) if (k % _HELDOUT == 0) == heldout]
        text = files[rng.integers(len(files))]
        start = int(rng.integers(len(text) - length))
        window = np.frombuffer(text[start : start + length + 1], dtype=np.uint8).astype(np.int64)
        return window[:-1], window[1:]

    def identity(self) -> dict[str, Any]:
        """See `RowTask.identity`; {} without files, to read records alone."""
        return super().identity() if self.files else {}

    def test_rows(self, rng: np.random.Generator, num: int, length: int) -> Rows:
        """A batch of windows of held-out files."""
        parts = zip(*(self.row(rng, length, heldout=True) for _ in range(num)), strict=True)
        return Rows(*(np.stack(part) for part in parts))


def text_files(folder: Path) -> list[bytes]:
    """The contents of the text files of a folder that are long enough, in a fixed order.

    Raises: SystemExit where there are fewer than ten.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix in _TEXT_SUFFIXES)
    random.Random(0).shuffle(paths)
    contents = [path.read_bytes() for path in paths[:200]]
    long_enough = [one for one in contents if len(one) > _LEAST_BYTES]
    if len(long_enough) < 2 * _HELDOUT:
        raise SystemExit(
            f"{folder} holds {len(long_enough)} text files above {_LEAST_BYTES} bytes; expected ten or more."
        )
    return long_enough


def text_rows(folder: Path) -> type[RowTask]:
    """The text task over the files of a folder. Raises: as of `text_files`."""
    return type("TextRowsOfFiles", (TextRows,), {"files": text_files(folder)})


RATES = (1e-2, 3e-3)
"""Learning rates, of which each mixer gets the better one, by rows that are not reported."""

RATED_ON = {
    "mqar_128": "mqar",
    "mqar_256": "mqar",
    "overwrite": "mqar",
    "joint_recall": "mqar",
    "parity": "text",
    "in_context_language": "text",
}
"""Task -> the task on which a mixer's rate is chosen, where that is another one."""


CONVOLVED = (
    "atlas",
    "conv_gla",
    "delta_net",
    "gated_delta_net",
    "hax",
    "mamba2",
)
"""Mixers with a short convolution of their own; in tasks of recall the others stand behind `BaseConv`."""


def task_of(name: str) -> type[RowTask]:
    """A task of the table; text has files only where the command line named some."""
    return ROW_TASKS.get(name, TextRows)


def settings_of(task: str, mixer: str = "", **changes: Any) -> BenchSettings:
    """Sizes and budget of a task: what separates the mixers, at some ten seconds of one core per model.

    changes: of settings, which replace those of the budget.
    """
    given = {**_BUDGETS[task], **({"front": None} if mixer in CONVOLVED else {})}
    given["steps"] = round(given["steps"] * SHARE_OF_STEPS.get(mixer, 1))
    given |= changes
    # Room beside the embeddings for the widest mixer; of two layers for all but the mixture of memories.
    room = 60_000 if given.get("layers", 2) == 1 else 36_000 * given.get("layers", 2)
    return BenchSettings(**{"parameters": 64 * task_of(task).vocabulary + room, **given})


_RECALL = {"layers": 1, "front": BASE_CONV, "test_rows": 256}
_BUDGETS: dict[str, dict[str, Any]] = {
    "mqar": {**_RECALL, "steps": 500, "batch_size": 16},
    "overwrite": {**_RECALL, "steps": 400, "batch_size": 16},
    "parity": {"steps": 400, "batch_size": 32, "test_rows": 128},
    "text": {"steps": 200, "batch_size": 4, "test_rows": 64},
    "in_context_language": {"steps": 600, "batch_size": 8, "test_rows": 128},
    "mqar_128": {**_RECALL, "steps": 500, "batch_size": 16},
    "mqar_256": {**_RECALL, "steps": 500, "batch_size": 16},
    "joint_recall": {**_RECALL, "layers": 2, "steps": 1000, "batch_size": 16},
}


def best_settings(
    work: Path, task: str, mixer: str, get: Callable[..., list[dict[str, Any]] | None], **changes: Any
) -> BenchSettings | None:
    """Settings of a task with the mixer's better rate; None where `get` (as of `with_best_rate`) lacks a model.

    With changes the rate is chosen on the task itself.
    """
    on = task if changes else RATED_ON.get(task, task)
    rated = with_best_rate(work / on, task_of(on)(), mixer, settings_of(on, mixer, **changes), RATES, get=get)
    return None if rated is None else dataclasses.replace(settings_of(task, mixer, **changes), lr=rated.lr)


def plan(options: Namespace) -> Iterator[tuple[str, str, int]]:
    """(task, mixer, seed) of each training: a seed after the other, and in each the paper's mixers first."""
    trained = (
        options.mixers if options.named else [name for name in options.mixers if name not in SHARE_OF_STEPS]
    )
    first = [name for name in trained if name in PAPER]
    groups = [first, [name for name in trained if name not in first]]
    for seed in range(options.seeds):
        for names in groups:
            for task in options.tasks:
                yield from ((task, name, seed) for name in names)


def train(options: Namespace) -> None:
    """Train every model of the plan that no earlier run has trained."""
    every = list(plan(options))
    for done, (task, mixer, seed) in enumerate(every):
        print(f"{done} of {len(every)}: {task}, {mixer}, seed {seed}", flush=True)
        settings = best_settings(options.work, task, mixer, train_model)
        train_model(options.work / task, task_of(task)(), mixer, seed, settings or settings_of(task, mixer))


def learnt(options: Namespace) -> dict[str, dict[str, dict[str, Any]]]:
    """Mixer -> task -> the summary of its longest test length, over the seeds that are trained, and their losses."""
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in options.mixers}
    for task, mixer in ((task, mixer) for task in options.tasks for mixer in options.mixers):
        settings = best_settings(options.work, task, mixer, trained_model)
        rows: list[dict[str, Any]] = []
        for seed in range(options.seeds if settings else 0):
            rows += trained_model(options.work / task, task_of(task)(), mixer, seed, settings) or []
        if rows:
            found[mixer][task] = last = summary(rows, [mixer])[-1]
            last["losses"] = [row["loss"] for row in rows if row["length"] == last["length"]]
    return found
