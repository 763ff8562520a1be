"""Fair comparison of training (`longlode demo --full`): what the score picks, against random and against the labels.

The pool is `synthetic.order_pool` of the demo's files: half of its rows are text in order, half are shuffled. Every
arm takes half of the rows of each file, so all arms read equally many distinct tokens of the same files, each once,
from the same first weights. The arm that knows the labels shows if any choice could make a difference at this size.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from longlode.core.batch import Batch
from longlode.core.fingerprints import fingerprint
from longlode.core.model_names import model_source
from longlode.demo import training
from longlode.demo.material import File
from longlode.evaluate.statistics import bootstrap_crossed
from longlode.synthetic.order_pool import OrderPool, make_order_pool

if TYPE_CHECKING:
    from longlode.demo.steps import DemoSettings

LABELS, SCORE, RANDOM = "text in order", "default", "random"
ARMS = (LABELS, SCORE, RANDOM)
NUM_SEEDS = 3
ROW_LENGTH = 4096
"""Tokens of a row: the shortest text that the score was fitted on."""
NEAR, FAR = 256, 4096
"""Contexts whose losses are compared; the gain is the difference between them."""
NUM_TARGETS, WINDOWS_PER_FILE = 256, 2
Values = Callable[[Sequence[dict[str, Any]]], list[float | None]]
"""Function that scores rows of a corpus."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Sizes of the comparison, known before it begins. num_steps: of each model. seconds: of all training."""

    pool: OrderPool
    num_steps: int
    seconds: float

    @property
    def num_tokens(self) -> int:
        """Tokens that each model reads."""
        return self.num_steps * ROW_LENGTH

    def in_words(self) -> str:
        """One line for the terminal, before anything is trained."""
        minutes = max(1, round(self.seconds / 60))
        return (
            f"The training comparison at the end: {len(ARMS) * NUM_SEEDS} models of {self.num_steps:,} steps "
            f"({self.num_tokens:,} tokens each), about {minutes} minute{'s' * (minutes > 1)} on this machine."
        )


@dataclass(frozen=True)
class Arm:
    """Results of one arm: means over seeds and windows, nats per token.

    in_order: share of its rows that are text in order. loss: after FAR tokens. gain: loss after NEAR less that after
    FAR. loss_less_random, gain_less_random: mean, low and high of the paired differences (95 %); None of random itself.
    """

    in_order: float
    loss: float
    gain: float
    loss_less_random: tuple[float, float, float] | None
    gain_less_random: tuple[float, float, float] | None


def plan_comparison(settings: "DemoSettings", files: Sequence[File]) -> Plan:
    """Make the pool, and time some steps. Raises: ConfigError when no file is long enough."""
    from longlode.corpus import Tokenizer

    tokenizer = Tokenizer.load(model_source(settings.model))
    works = {one.id: tokenizer.encode_long(one.text) for one in files}
    pool = make_order_pool(works, ROW_LENGTH + 1, np.random.default_rng(settings.seed))
    num_steps = len(pool.best_of_each_work(np.zeros(len(pool.rows))))
    seconds = training.seconds_per_step(_recipe(settings, num_steps, 0), tokenizer.vocab_size)
    return Plan(pool, num_steps, seconds * num_steps * len(ARMS) * NUM_SEEDS)


def compare_training(
    settings: "DemoSettings", plan: Plan, heldout: Sequence[File], values: Values
) -> dict[str, Arm]:
    """Train every arm with every seed, and read the same held-out tokens with each. Args: values, of the default score.

    Returns: arm -> results.
    """
    from longlode.corpus import Tokenizer

    tokenizer = Tokenizer.load(model_source(settings.model))
    pool, seeds = plan.pool, range(settings.seed, settings.seed + NUM_SEEDS)
    windows, texts = _windows(heldout, tokenizer, settings.seed)
    rows = [
        {"id": str(number), "source": str(work), "text": tokenizer.decode(row.tolist())}
        for number, (row, work) in enumerate(zip(pool.rows, pool.works, strict=True))
    ]
    scores = np.array([np.nan if value is None else value for value in values(rows)])
    losses: dict[str, np.ndarray] = {}
    shares: dict[str, float] = {}
    for arm in ARMS:
        found = []
        for seed in seeds:
            chosen = pool.best_of_each_work(_wanted(arm, pool, scores, seed))
            shares[arm] = shares.get(arm, 0.0) + float(pool.in_order[chosen].mean()) / NUM_SEEDS
            found.append(_losses(settings, f"{arm}, seed {seed}", chosen, seed, pool, windows, tokenizer))
        losses[arm] = np.stack(found)
    return {arm: _arm(shares[arm], losses[arm], losses[RANDOM], texts, arm == RANDOM) for arm in ARMS}


def _wanted(arm: str, pool: OrderPool, scores: np.ndarray, seed: int) -> np.ndarray:
    if arm == LABELS:
        return pool.in_order.astype(float)
    return scores if arm == SCORE else np.random.default_rng(1000 + seed).random(len(pool.rows))


def _recipe(settings: "DemoSettings", num_steps: int, seed: int) -> Any:
    from longlode.api.readers import pick_dtype

    dtype, _ = pick_dtype("auto")
    shards = settings.out / "comparison"  # the rows are in memory; the recipe only names where the run is
    return training.make_recipe(shards, num_steps, seed, dtype, length=ROW_LENGTH, batch_size=1)


def _losses(
    settings: "DemoSettings",
    name: str,
    chosen: np.ndarray,
    seed: int,
    pool: OrderPool,
    windows: np.ndarray,
    tokenizer: Any,
) -> np.ndarray:
    """Train one model on its rows, in an order drawn by the seed; nats per token `[windows, (NEAR, FAR)]`."""
    from longlode.evaluate.surprisal import SurprisalMeter, losses_after
    from longlode.models import load
    from longlode.train import build_model, train

    recipe = _recipe(settings, len(chosen), seed)
    rows = pool.rows[np.random.default_rng(seed).permutation(chosen)].astype(np.int64)

    def batches(step: int) -> Iterator[Batch]:
        for row in rows[step:]:
            yield Batch(row[None, :-1], row[None, 1:])

    folder = settings.out / "comparison" / "run"
    shutil.rmtree(folder, ignore_errors=True)
    with training.progress(name) as update:
        began = time.monotonic()

        def tell(row: dict[str, Any]) -> None:
            speed = row["step"] * ROW_LENGTH / (time.monotonic() - began)
            update(int(row["step"]), len(rows), f"steps: loss {row['loss']:.3f}, {speed:,.0f} tokens/s")

        summary = train(
            build_model(recipe, tokenizer.vocab_size),
            batches,
            recipe,
            folder,
            data_fingerprint=fingerprint({"rows": rows.tolist()}),
            tokenizer_folder=model_source(settings.model),
            on_step=tell,
        )
    if summary.model_folder is None:
        raise KeyboardInterrupt  # the loop has saved and returned; the demo has no run to go on with
    model, _ = load(summary.model_folder)
    return losses_after(SurprisalMeter(model.float()), windows.tolist(), (NEAR, FAR), NUM_TARGETS)


def _windows(heldout: Sequence[File], tokenizer: Any, seed: int) -> tuple[np.ndarray, list[str]]:
    """Windows at random places of files that no arm reads, `[N, FAR + NUM_TARGETS]`, and the file of each."""
    rng, width = np.random.default_rng(seed), FAR + NUM_TARGETS
    windows, texts = [], []
    for one in heldout:
        tokens = tokenizer.encode_long(one.text)
        if len(tokens) < width:
            continue
        for start in rng.integers(0, len(tokens) - width + 1, size=WINDOWS_PER_FILE):
            windows.append(tokens[start : start + width])
            texts.append(one.id)
    return np.stack(windows), texts


def _arm(
    in_order: float, losses: np.ndarray, random: np.ndarray, texts: Sequence[str], is_random: bool
) -> Arm:
    """Args: losses, random: `[seeds, windows, (NEAR, FAR)]`."""
    far, gain = losses[:, :, 1], losses[:, :, 0] - losses[:, :, 1]
    if is_random:
        return Arm(in_order, float(far.mean()), float(gain.mean()), None, None)
    less = losses - random
    return Arm(
        in_order,
        float(far.mean()),
        float(gain.mean()),
        bootstrap_crossed(less[:, :, 1], texts),
        bootstrap_crossed(less[:, :, 0] - less[:, :, 1], texts),
    )
