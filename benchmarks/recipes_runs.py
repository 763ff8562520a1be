"""The runs of `benchmarks.recipes`: a base model of short rows, and what continues it at equal compute."""

import json
import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.claims.mining_measures import Held, Measured, measure
from benchmarks.recipes_corpus import OTHER
from longlode.api.training import train_run
from longlode.api.training_data import RunData, open_run_data
from longlode.core.fingerprints import fingerprint
from longlode.core.records import write_json
from longlode.models import LonglodeForCausalLM
from longlode.train import Recipe, build_model
from longlode.train.usage import Usage
from recipes.scaled_down import scaled_down

BASE, PLAIN, SCRATCH = "base", "plain", "long from scratch"
DIVIDE = {"long_continue": 64, "effective_long": 8, "progressive": 32, "mined_long": 16}
"""What a recipe's lengths are divided by: rows of 4,096 tokens at last, of 8,192 in the recipe that trains on rows
longer than those it will be tested on."""
BASE_LENGTH, LONG_LENGTH = 256, 4096
STEP_TOKENS = 4096
MODEL: dict[str, Any] = {
    "layers": [{"mixer": "ngram_head", "block": "mixer"}, "delta_net", "attention", "delta_net"],
    "hidden_size": 128,
    "num_heads": 2,
    "intermediate_size": 384,
    "tie_word_embeddings": True,
    "initializer_range": 128**-0.5,
}


@dataclass(frozen=True)
class Sizes:
    """base_steps, plain_steps, sft_steps: steps of the base model, of its plain continuation, of fine-tuning. lr: of
    models from scratch; continued_lr, sft_lr: of the others.
    """

    base_steps: int = 96
    plain_steps: int = 40
    sft_steps: int = 16
    lr: float = 6e-3
    continued_lr: float = 2e-3
    sft_lr: float = 1e-3


@dataclass(frozen=True, eq=False)
class Bench:
    """What all runs share. work: folder of runs; texts, chats: shards; held: what is measured."""

    work: Path
    texts: Path
    chats: Path
    held: Held
    sizes: Sizes

    def run(self, arm: str, seed: int) -> dict[str, Any]:
        """Train an arm, measure it, fine-tune it on short chats, measure again; or read the record of an earlier call.

        Returns: recipe's fingerprint, steps, tokens, flops of training up to the arm's model (those of the base model
        included), `before` and `after` fine-tuning (questions alone): `Measured` as plain values.
        """
        recipe = self.recipe(arm, seed)
        name = fingerprint([_short(recipe), vars(self.sizes), MODEL, self.held.fingerprint])
        own = self.work / f"{arm.replace(' ', '_')}-{seed}-{name[:8]}"
        record = own / "measured.json"
        if not record.is_file():
            folder = self._base(seed) if arm == BASE else _trained(recipe, own / "run")
            before = _measured(folder, self.held)
            tuned = _trained(self._fine_tuning(folder, seed), own / "sft")
            facts = _facts(recipe)
            flops = facts["flops"] + (0.0 if arm in (BASE, SCRATCH) else self.flops(BASE, seed))
            found = {"arm": arm, "seed": seed, "recipe": recipe.fingerprint(), **facts, "flops": flops}
            after = _measured(tuned, Held({}, self.held.questions))
            found |= {"before": before.to_json(), "after": after.to_json()}
            write_json(record, found)
        return dict(json.loads(record.read_text(encoding="utf-8")))

    def flops(self, arm: str, seed: int) -> float:
        """Operations of an arm's own steps."""
        return float(_facts(self.recipe(arm, seed))["flops"])

    def recipe(self, arm: str, seed: int) -> Recipe:
        """The recipe of an arm; those that continue the base model take as many operations as the plain one."""
        sizes = self.sizes
        if arm == BASE:
            return self._plain(BASE_LENGTH, sizes.base_steps, seed, sizes.lr, None)
        if arm == PLAIN:
            start = str(self._base(seed))
            return self._plain(BASE_LENGTH, sizes.plain_steps, seed, sizes.continued_lr, start)
        if arm == SCRATCH:
            wanted = self.flops(BASE, seed) + self.flops(PLAIN, seed)
            return _sized(lambda steps: self._plain(LONG_LENGTH, steps, seed, sizes.lr, None), wanted)
        return _sized(lambda steps: self._long(arm, steps, seed), self.flops(PLAIN, seed))

    def _base(self, seed: int) -> Path:
        return _trained(
            self.recipe(BASE, seed), self.work / f"start-{seed}-{_short(self.recipe(BASE, seed))}"
        )

    def _plain(self, length: int, steps: int, seed: int, lr: float, start: str | None) -> Recipe:
        """Rows of one length, documents end to end as they come."""
        tree: dict[str, Any] = {
            "data": {
                "shards": str(self.texts),
                "length": length,
                "batch_size": STEP_TOKENS // length,
                "heldout_fraction": 0.1,
            },
            "optim": _optim(lr, 10 if start is None else 5),
            "run": {"steps": steps, **_run(seed)},
        }
        if start is None:
            tree["model"] = MODEL
        else:
            tree["run"]["start"] = start
        return Recipe.parse(tree)

    def _long(self, name: str, steps: int, seed: int) -> Recipe:
        recipe = scaled_down(
            name,
            str(self.texts),
            divide=DIVIDE[name],
            tokens_per_step=STEP_TOKENS,
            steps=steps,
            start=str(self._base(seed)),
            lr=self.sizes.continued_lr,
        )
        tree = recipe.resolved()
        tree["run"] |= _run(seed)
        if name == "long_continue":  # its `rest` is to be good short text, and here lists would be in it
            for table in (tree["data"], *tree["stages"]):
                if "mix" in table:
                    table["mix"] = table["mix"].replace("rest=", f"{OTHER}=")
        return Recipe.parse(tree)

    def _fine_tuning(self, start: Path, seed: int) -> Recipe:
        """Short chats with a loss on the answers alone."""
        data = {"shards": str(self.chats), "length": 512, "batch_size": 8, "packer": "best_fit"}
        run = {"steps": self.sizes.sft_steps, "start": str(start), **_run(seed)}
        return Recipe.parse({"data": data, "optim": _optim(self.sizes.sft_lr, 5), "run": run})


def _measured(folder: Path, held: Held) -> Measured:
    return measure(LonglodeForCausalLM.from_pretrained(folder, dtype=torch.float32), held)


def _optim(lr: float, warmup: int) -> dict[str, Any]:
    more = {"schedule": "wsd", "decay_fraction": 0.3, "min_lr_ratio": 0.05, "weight_decay": 0.1}
    return {"lr": lr, "warmup_steps": warmup, **more}


def _run(seed: int) -> dict[str, Any]:
    more = {"device": "cpu", "threads": 1, "checkpoint_every": 20, "eval_batches": 1}
    return {"seed": seed, "dtype": "bfloat16", **more}


def _short(recipe: Recipe) -> str:
    """Name a recipe with its number of steps, which its fingerprint leaves out."""
    return f"{recipe.fingerprint()[:8]}-{recipe.num_steps}"


def _trained(recipe: Recipe, folder: Path) -> Path:
    """Train, or go on where a run was stopped; return the model's folder. Raises: SystemExit if interrupted."""
    if (folder / "model" / "config.json").is_file() and (folder / "finished").is_file():
        return folder / "model"
    summary = train_run(recipe, folder, resume=(folder / "record.json").is_file(), verify=False)
    if summary.model_folder is None:
        raise SystemExit(f"{folder}: {summary.status}; the same command goes on.")
    (folder / "finished").touch()
    return summary.model_folder


_counted: dict[str, dict[str, Any]] = {}


def _facts(recipe: Recipe) -> dict[str, Any]:
    """Steps, tokens and operations of all steps of a recipe, counted batch by batch, once per process."""
    name = _short(recipe)
    if name not in _counted:
        _counted[name] = _count(recipe)
    return _counted[name]


def _count(recipe: Recipe) -> dict[str, Any]:
    data, usage = _opened(recipe)
    tokens, flops, steps = 0, 0.0, recipe.num_steps or 0
    for batch in islice(data.batches(0), steps):
        tokens += batch.tokens.size
        flops += usage.step_flops(batch)
    return {"steps": steps, "tokens": tokens, "flops": flops}


def _opened(recipe: Recipe) -> tuple[RunData, Usage]:
    data = open_run_data(recipe, None, False, lambda line: None)
    return data, Usage(build_model(recipe, data.shards.vocab_size), 1.0)


def _sized(make: Any, wanted: float) -> Recipe:
    """The recipe whose operations come nearest to `wanted`. Args: make, steps -> recipe.

    Operations per step differ between stages, and stages round to whole steps, so that the number is searched.
    """
    steps, tried = 40, dict[int, float]()
    for _ in range(6):
        if steps in tried:
            break
        tried[steps] = _facts(make(steps))["flops"]
        steps = max(4, round(steps * wanted / tried[steps]))
    return make(min(tried, key=lambda one: math.fabs(tried[one] - wanted)))
