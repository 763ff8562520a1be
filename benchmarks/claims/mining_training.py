"""One run of `benchmarks.claims.mining`: an arm, a seed, a setting; trained, measured, kept in its folder."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.claims.mining_measures import Held, Measured, measure
from benchmarks.claims.mining_pool import Pool
from longlode.core.batch import Batch
from longlode.core.errors import ConfigError
from longlode.core.fingerprints import fingerprint
from longlode.models import LonglodeForCausalLM, load, starter_folder
from longlode.models.fingerprint import model_fingerprint
from longlode.train import Recipe, build_model, train

LAYERS: list[Any] = [
    {"mixer": "ngram_head", "block": "mixer"},
    "delta_net",
    "delta_net",
    "delta_net",
]
"""A stack that learns within a million tokens to use far context (docs/experiments/starter.md)."""


@dataclass(frozen=True)
class Setting:
    """What is trained: a stack from scratch, or the starter trained on.

    name: scratch or starter.   tokens: that an arm is trained on, of the rows it takes.   lr: highest learning rate.
    step_tokens: of a step.   warmup_steps: over which the learning rate rises.
    width, layers: of a stack from scratch.
    """

    name: str
    tokens: int
    lr: float
    step_tokens: int
    warmup_steps: int
    width: int = 128
    layers: list[Any] = field(default_factory=lambda: LAYERS)

    def model(self, recipe: Recipe, vocab_size: int) -> LonglodeForCausalLM:
        """The model before the first step, float32; from scratch the seed draws its weights."""
        if self.name == "scratch":
            return build_model(recipe, vocab_size)
        model, _ = load(str(starter_folder()))
        return model.float()

    def begun_with(self) -> str:
        """Name of the first weights, "" for weights that the seed draws."""
        return "" if self.name == "scratch" else model_fingerprint(load(str(starter_folder()))[0])

    def model_section(self) -> dict[str, Any]:
        """The network, as a recipe has it."""
        if self.name == "starter":
            config = json.loads((Path(starter_folder()) / "config.json").read_text(encoding="utf-8"))
            keys = ("layers", "hidden_size", "num_heads", "intermediate_size", "tie_word_embeddings")
            return {key: config[key] for key in (*keys, "initializer_range")}
        return {
            "layers": self.layers,
            "hidden_size": self.width,
            "num_heads": max(1, self.width // 64),
            "intermediate_size": 3 * self.width,
            "tie_word_embeddings": True,
            "initializer_range": self.width**-0.5,
        }

    def recipe(self, *, seed: int, length: int, num_rows: int) -> Recipe:
        """How an arm of so many rows of `length` tokens is trained: once over them, a last part of a step left out.

        Raises: ConfigError for fewer rows than a step has.
        """
        batch_size = max(1, self.step_tokens // length)
        if num_rows < batch_size:
            raise ConfigError(f"{num_rows} rows of {length:,} tokens; a step alone has {batch_size} rows.")
        return Recipe.model_validate(
            {
                "model": self.model_section(),
                "data": {"length": length, "batch_size": batch_size, "packed": False},
                "optim": {
                    "lr": self.lr,
                    "min_lr_ratio": 0.05,
                    "warmup_steps": self.warmup_steps,
                    "schedule": "wsd",
                    "decay_fraction": 0.3,
                    "weight_decay": 0.1,
                },
                "run": {
                    "steps": num_rows // batch_size,
                    "seed": seed,
                    "dtype": "bfloat16",
                    "threads": 1,
                    "checkpoint_every": 25,
                },
            }
        )


SETTINGS = {
    "scratch": Setting("scratch", tokens=417_792, lr=6e-3, step_tokens=8192, warmup_steps=10),
    "starter": Setting("starter", tokens=155_648, lr=1e-3, step_tokens=4096, warmup_steps=3),
}


def in_training_order(chosen: np.ndarray, seed: int) -> np.ndarray:
    """The chosen rows, shuffled: of a seed, each arm of a size reads the same works at the same step."""
    return chosen[np.random.default_rng(seed).permutation(len(chosen))]


def run(
    setting: Setting, seed: int, pool: Pool, chosen: np.ndarray, held: Held, folder: Path, times: int = 1
) -> Measured:
    """Train and measure, or read the record of an earlier call; a run that was stopped goes on.

    Arms that chose the same rows share one run.
    Args: chosen, numbers of the rows; folder, that has all runs; times, that the setting's tokens are read.
    Raises: SystemExit when the run is interrupted.
    """
    length = pool.rows.shape[1] - 1
    order = in_training_order(chosen, seed)[: times * setting.tokens // length]
    recipe = setting.recipe(seed=seed, length=length, num_rows=len(order))
    facts = {"recipe": recipe.fingerprint(), "steps": recipe.num_steps, "begun_with": setting.begun_with()}
    name = fingerprint(facts | {"rows": chosen.tolist(), "pool": pool.fingerprint})
    own = folder / f"{setting.name}-{seed}-{name[:12]}"
    record = own / f"measured-{held.fingerprint[:8]}.json"
    if not record.is_file():
        model, loss = _train(setting, recipe, pool, order, own / "run", name)
        found = measure(model, held)
        tokens = (recipe.num_steps or 0) * recipe.data.batch_size * length
        about = {"setting": setting.name, "seed": seed, "tokens": tokens, "train_loss": loss}
        record.write_text(json.dumps({**about, **found.to_json()}), encoding="utf-8")
    return Measured.from_json(json.loads(record.read_text(encoding="utf-8")))


def _train(
    setting: Setting, recipe: Recipe, pool: Pool, order: np.ndarray, folder: Path, name: str
) -> tuple[LonglodeForCausalLM, float]:
    summary = train(
        setting.model(recipe, pool.vocab_size),
        lambda step: _batches(pool.rows[order], recipe, step),
        recipe,
        folder,
        data_fingerprint=name,
        resume=(folder / "record.json").is_file(),
    )
    if summary.model_folder is None:
        raise SystemExit(f"{folder.parent.name}: {summary.status}; the same command goes on.")
    model = LonglodeForCausalLM.from_pretrained(summary.model_folder, dtype=torch.float32)
    return model, math.nan if summary.loss is None else summary.loss


def _batches(rows: np.ndarray, recipe: Recipe, step: int) -> Iterator[Batch]:
    """One pass over the rows `[n, length + 1]`, from a step on."""
    size = recipe.data.batch_size
    for start in range(step * size, len(rows) - size + 1, size):
        part = rows[start : start + size].astype(np.int64)
        yield Batch(part[:, :-1], part[:, 1:])
