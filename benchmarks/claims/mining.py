"""Does training on mined text help a model to use far context? Small models, trained from scratch, arm against arm.

    python -m benchmarks.claims.mining --work FOLDER [--arms oracle,random,spliced] [--seeds 3] [--tokens 1000000]
        [--layers LIST.json] [--save]

The pool is of known make (`benchmarks/claims/mining_pool.py`): half of its rows are text as it stands, the other half
are the same kinds of text cut into short pieces and shuffled. Every arm chooses as many rows as the pool has of one
half: `oracle` those in order, `random` any, `spliced` those shuffled, and any scorer of longlode (`default`, `gzip`,
`profile`, ...) those that it scores highest. All arms train on equally many tokens, none twice, of the same works.
A seed fixes the first weights and the draw, the same in each arm. Measured is the loss of the same held-out targets
(dev works) after 16 to 4,096 tokens of context, paired by seed and work.

The oracle arm tells whether any way of mining could show anything at this size: where it does not differ from `random`,
no scorer can. A run that was stopped goes on with the same command; finished ones are not repeated, and every run
leaves its record in FOLDER.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.claims.mining_pool import Pool, choose, make_pool
from benchmarks.context_curve import CONTEXTS, Windows, losses, make_windows
from benchmarks.saved import about, save
from benchmarks.works import works_of
from longlode.core.batch import Batch
from longlode.core.errors import ConfigError, InputError
from longlode.core.fingerprints import fingerprint
from longlode.corpus import Tokenizer
from longlode.models import LonglodeForCausalLM, starter_folder
from longlode.train import Recipe, build_model, train

LAYERS: list[Any] = [
    {"mixer": "ngram_head", "block": "mixer"},
    "delta_net",
    "delta_net",
    "delta_net",
]
"""A stack that learns within a million tokens to use far context (docs/experiments.md)."""
GAIN = (256, 4096)
"""The gain of far context is the loss after the first less that after the second."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, then print the table."""
    options = parse(arguments)
    torch.set_num_threads(1)
    tokenizer = Tokenizer.load(starter_folder())
    pool = make_pool(works_of("fit"), tokenizer, length=options.length, seed=0)
    windows = make_windows(works_of("dev"), tokenizer, windows=options.windows, targets=256)
    arms = options.arms.split(",")
    found: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for seed in range(options.seeds):
        for arm in arms:
            chosen = choose(arm, pool, tokenizer, seed)
            found[arm, seed] = run(arm, seed, pool, chosen, windows, options)
            show(table(found, windows, arms, pool), Console(width=150))
    if options.save:
        result = about("claims.mining") | {"sizes": vars(options) | {"work": None}}
        save("claims-mining", result | {"arms": table(found, windows, arms, pool)}, None)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of runs and their records")
    parser.add_argument("--arms", default="oracle,random,spliced", help="with commas between")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=1_000_000, help="each model is trained on")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a row")
    parser.add_argument("--windows", type=int, default=64, help="held-out windows of prose and of code")
    parser.add_argument("--width", type=int, default=128, help="hidden size; heads have 64 numbers")
    parser.add_argument("--lr", type=float, default=6e-3)
    parser.add_argument("--layers", type=Path, default=None, help="JSON file with the list of layers")
    parser.add_argument("--save", action="store_true", help="write a dated file to benchmarks/results/")
    return parser.parse_args(arguments)


def recipe_of(options: argparse.Namespace, seed: int) -> Recipe:
    """How every arm is trained."""
    layers = LAYERS if options.layers is None else json.loads(options.layers.read_text(encoding="utf-8"))
    batch_size = max(1, 8192 // options.length)
    if options.tokens < batch_size * options.length:
        raise ConfigError(
            f"--tokens is {options.tokens:,}; a step alone has {batch_size * options.length:,}."
        )
    return Recipe.model_validate(
        {
            "model": {
                "layers": layers,
                "hidden_size": options.width,
                "num_heads": max(1, options.width // 64),
                "intermediate_size": 3 * options.width,
                "tie_word_embeddings": True,
                "initializer_range": options.width**-0.5,
            },
            "data": {"length": options.length, "batch_size": batch_size},
            "optim": {
                "lr": options.lr,
                "min_lr_ratio": 0.05,
                "warmup_steps": 10,
                "schedule": "wsd",
                "decay_fraction": 0.3,
                "weight_decay": 0.1,
            },
            "run": {
                "steps": options.tokens // (batch_size * options.length),
                "seed": seed,
                "dtype": "bfloat16",
                "threads": 1,
                "checkpoint_every": 25,
            },
        }
    )


def run(
    arm: str,
    seed: int,
    pool: Pool,
    chosen: np.ndarray,
    windows: dict[str, Windows],
    options: argparse.Namespace,
) -> dict[str, np.ndarray]:
    """Loss of every window and context of one arm and seed; from its record if it was measured before."""
    recipe = recipe_of(options, seed)
    name = fingerprint(
        {"recipe": recipe.model_dump(mode="json"), "rows": chosen.tolist(), "pool": pool.fingerprint}
    )
    folder = options.work / f"{arm}-{seed}-{name[:12]}"
    measured_on = fingerprint({kind: part.rows.tolist() for kind, part in windows.items()})
    record = folder / f"losses-{measured_on[:8]}.json"
    if not record.is_file():
        order = np.random.default_rng(seed).permutation(chosen)
        needed = recipe.num_steps * recipe.data.batch_size
        if len(order) < needed:
            raise ConfigError(
                f"The pool gives an arm {len(order):,} rows, and {needed:,} are to be read; "
                f"expected --tokens of at most {len(order) * options.length:,}."
            )
        summary = train(
            build_model(recipe, pool.vocab_size),
            lambda step: _batches(pool.rows[order], recipe, step),
            recipe,
            folder / "run",
            data_fingerprint=name,
            resume=(folder / "run" / "record.json").is_file(),
        )
        if summary.model_folder is None:
            raise SystemExit(f"{arm}, seed {seed}: {summary.status}; the same command goes on.")
        model = LonglodeForCausalLM.from_pretrained(summary.model_folder, dtype=torch.float32)
        measured = {
            kind: losses(model, part, dtype=torch.bfloat16).tolist() for kind, part in windows.items()
        }
        record.write_text(
            json.dumps({"arm": arm, "seed": seed, "train_loss": summary.loss, "losses": measured}),
            encoding="utf-8",
        )
    saved = json.loads(record.read_text(encoding="utf-8"))["losses"]
    return {kind: np.array(values) for kind, values in saved.items()}


def _batches(rows: np.ndarray, recipe: Recipe, step: int) -> Iterator[Batch]:
    """One pass over the rows `[n, length + 1]`, from a step on."""
    size = recipe.data.batch_size
    for start in range(step * size, len(rows) - size + 1, size):
        part = rows[start : start + size].astype(np.int64)
        yield Batch(part[:, :-1], part[:, 1:])


def table(
    found: dict[tuple[str, int], dict[str, np.ndarray]],
    windows: dict[str, Windows],
    arms: Sequence[str],
    pool: Pool,
) -> dict[str, Any]:
    """Per arm and kind: mean loss by context, the gain of far context, and both less those of `random`, paired."""
    near, far = (CONTEXTS.index(context) for context in GAIN)
    rows: dict[str, Any] = {}
    for arm in arms:
        seeds = [seed for name, seed in found if name == arm]
        paired = [seed for seed in seeds if ("random", seed) in found]
        for kind, part in windows.items():
            values = {seed: found[arm, seed][kind] for seed in seeds}
            if not values:
                continue
            mean = np.mean(list(values.values()), axis=(0, 1))
            row: dict[str, Any] = {
                "seeds": len(seeds),
                "loss": mean.tolist(),
                "gain": float(mean[near] - mean[far]),
            }
            if arm != "random" and paired:
                less = np.stack([values[seed] - found["random", seed][kind] for seed in paired])
                row["loss_less_random"] = interval(less[:, :, far], part.works)
                row["gain_less_random"] = interval(less[:, :, near] - less[:, :, far], part.works)
            rows[f"{arm}, {kind}"] = row
    return rows


def interval(values: np.ndarray, works: np.ndarray, draws: int = 2000) -> list[float]:
    """Mean of `[seeds, windows]`, and a 95 % bootstrap interval over seeds and works together: [mean, low, high]."""
    names = np.unique(works)
    cells = np.stack([values[:, works == name].mean(1) for name in names], 1)
    rng = np.random.default_rng(0)
    means = [
        cells[rng.integers(len(cells), size=len(cells))][:, rng.integers(len(names), size=len(names))].mean()
        for _ in range(draws)
    ]
    return [float(cells.mean()), *(float(x) for x in np.quantile(means, (0.025, 0.975)))]


def show(rows: dict[str, Any], console: Console) -> None:
    """Print the table."""
    shown = Table(
        title="held-out nats per token by context; less those of random (95 % over seeds and works)"
    )
    for title in (
        "arm, text",
        "seeds",
        *(f"{context:,}" for context in CONTEXTS),
        f"gain {GAIN[0]} to {GAIN[1]:,}",
    ):
        shown.add_column(title, justify="left" if title == "arm, text" else "right")
    shown.add_column("loss less random", justify="right")
    shown.add_column("gain less random", justify="right")
    for name, row in rows.items():
        less = [
            "{:+.3f} ({:+.3f}, {:+.3f})".format(*row[key]) if key in row else ""
            for key in ("loss_less_random", "gain_less_random")
        ]
        shown.add_row(
            name, str(row["seeds"]), *(f"{x:.3f}" for x in row["loss"]), f"{row['gain']:+.3f}", *less
        )
    console.print(shown)


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, InputError) as error:
        sys.exit(f"error: {error}")
