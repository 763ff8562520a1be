"""One-minute training: a stack that learns to use far context within a minute, and its curve on unread files."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlode.cli.console import progress
from longlode.cli.train import watched
from longlode.core.rows import read_rows
from longlode.demo.curves import Curves, read_curves

if TYPE_CHECKING:
    from longlode.train import Recipe

LENGTH, BATCH_SIZE = 1024, 4
MIN_STEPS, MAX_STEPS = 20, 400
FEW_TOKENS = 300_000
"""Fewest training tokens of a model that is judged."""
MAX_WINDOWS = 16
LAYERS: list[Any] = [{"mixer": "ngram_head", "block": "mixer"}, "delta_net", "delta_net", "delta_net"]
"""The stack: an n-gram head, which looks up what followed the last tokens earlier, and three layers of DeltaNet."""
_WIDTH = 128
_PROBE_STEPS = 2
MOST_CONTEXT, NUM_TARGETS = 4096, 128
"""Tokens of the longest context of a curve, and of the targets that are predicted after it."""


def make_recipe(
    shards: Path,
    num_steps: int,
    seed: int,
    dtype: str = "float32",
    *,
    length: int | None = None,
    batch_size: int | None = None,
) -> "Recipe":
    """Recipe of the small model. Args: shards, its text; dtype, of matrix products; length, batch_size, of its rows."""
    from longlode.train import Recipe

    return Recipe.parse(
        {
            "model": {
                "layers": LAYERS,
                "hidden_size": _WIDTH,
                "num_heads": 2,
                "intermediate_size": 3 * _WIDTH,
                "tie_word_embeddings": True,
                "initializer_range": _WIDTH
                ** -0.5,  # 0.02 stands on the unigram plateau for most of the minute
            },
            "data": {
                "shards": str(shards),
                "length": length or LENGTH,
                "batch_size": batch_size or BATCH_SIZE,
                "packed": False,
            },
            "optim": {
                "lr": 6e-3,
                "min_lr_ratio": 0.05,
                "warmup_steps": min(10, num_steps),
                "schedule": "wsd",
                "decay_fraction": 0.3,
                "weight_decay": 0.1,
            },
            "run": {
                "steps": num_steps,
                "seed": seed,
                "device": "cpu",
                "dtype": dtype,
                "checkpoint_every": None,
            },
        }
    )


def affordable_steps(recipe: "Recipe", vocab_size: int, seconds: float) -> int:
    """Steps that fit into a time on this machine."""
    return min(max(int(seconds / seconds_per_step(recipe, vocab_size)), MIN_STEPS), MAX_STEPS)


def seconds_per_step(recipe: "Recipe", vocab_size: int) -> float:
    """Time of a training step on this machine: the fastest of a few, after one to warm up."""
    import numpy as np

    from longlode.core.batch import Batch
    from longlode.train import build_model
    from longlode.train.loop import training_step
    from longlode.train.optim import build_optimizer

    model = build_model(recipe, vocab_size)
    optimizer = build_optimizer(model, recipe.optim)
    sizes = (recipe.data.batch_size, recipe.data.length)
    tokens = np.random.default_rng(0).integers(0, vocab_size, sizes)
    times = []
    for _ in range(1 + _PROBE_STEPS):
        started = time.monotonic()
        training_step(model, Batch(tokens, tokens), optimizer, 1e-4, recipe)
        times.append(time.monotonic() - started)
    return min(times[1:])


def train_one(recipe: "Recipe", out: Path, label: str) -> None:
    """Train into the folder `out` under a progress bar."""
    from longlode.api.training import train_run

    with watched(label) as (started, tell):
        train_run(recipe, out, on_start=started, on_step=tell)


def num_tokens(num_steps: int) -> int:
    """Tokens that this number of steps reads."""
    return num_steps * LENGTH * BATCH_SIZE


def context_curve(source: str | Path, out: Path, texts: Sequence[str], name: str, seed: int = 0) -> Curves:
    """Evaluate a model's context curve into `out`. Args: source, its folder; name, for the report."""
    from longlode.evaluate import evaluate
    from longlode.evaluate.tasks.context_curve import ContextCurve
    from longlode.models import load

    model, tokenizer = load(source)
    model.float()
    with progress(f"reading, {name}") as update:
        evaluate(
            model,
            tokenizer,
            tasks=[ContextCurve(NUM_TARGETS)],
            lengths=[MOST_CONTEXT + NUM_TARGETS],
            out=out,
            num_examples=MAX_WINDOWS,
            seed=seed,
            texts=texts,
            name=name,
            progress=update,
        )
    return read_curves(read_rows(out / "examples.parquet"))
