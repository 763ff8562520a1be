"""Training of small models on a task of symbols, one per mixer and seed, and the table of what they learnt."""

import dataclasses
import functools
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from longlode.core.errors import ConfigError, InputError
from longlode.core.fingerprints import fingerprint
from longlode.core.outputs import claim_folder
from longlode.core.records import read_json, write_json, write_record
from longlode.evaluate.bench.row_tasks import NOT_ASKED, Rows, RowTask
from longlode.evaluate.bench.tasks import ROW_TASKS
from longlode.evaluate.statistics import bootstrap_mean
from longlode.mixers import LETTERS, MIXERS, ParameterRule, rules_of
from longlode.mixers.stack import parse_stack
from longlode.models import LonglodeConfig, LonglodeForCausalLM

_log = logging.getLogger(__name__)

PARTS_NAME = "parts"
_TASK = "task"  # key of a row in `parts`: the task that the model was trained on
_NUM_NAMED = 4
_DECODER = "task_decoder"  # attribute of a model whose task brings its own
# Rows of the test, and those by which a learning rate is chosen: the same for all models, of no training seed.
_TEST_SEED, _VALIDATION_SEED = 10**9, 10**9 + 1
RATES = (0.01, 0.003)
"""Learning rates that `bench` chooses from unless it is given settings."""
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class BenchSettings:
    """Sizes of each model, and how it is trained.

    layers, hidden_size, num_heads: of the stack, every layer of which has the same mixer.
    front: name or address of the mixer of a layer more, without MLP, in front of the others; None: no such layer.
    steps, batch_size: of training, a fresh batch per step.   lr: the peak; 10 % warm-up, then a cosine to 0.
    weight_decay: of AdamW, where mixers say that it applies.   test_rows: per length.
    initializer_range: standard deviation of the initial weights; None: 1 / sqrt(hidden_size), which keeps the size of
      what a matrix is applied to. (At this width 0.02 makes products of two or three projections start near 0.)
    allow_neg_eigval: let beta of the delta rule reach 2.
    tie_embeddings: read and write symbols by one matrix, as Zoology does; recall is learnt in far fewer steps.
    parameters: about how many each model has, by the width of its MLPs; None: MLPs of twice the width.
    Raises: ConfigError for a number that makes no sense.
    """

    layers: int = 2
    hidden_size: int = 64
    num_heads: int = 2
    steps: int = 600
    batch_size: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.1
    test_rows: int = 256
    allow_neg_eigval: bool = False
    tie_embeddings: bool = True
    parameters: int | None = None
    initializer_range: float | None = None
    front: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        above_0 = ("layers", "hidden_size", "num_heads", "steps", "batch_size", "lr", "test_rows")
        for name in (*above_0, *(["initializer_range"] if self.initializer_range is not None else [])):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a number above 0.")


def bench(
    task: str,
    out: str | os.PathLike[str],
    *,
    mixers: Sequence[str] = ("D", "G", "L", "S", "A"),
    seeds: int = 3,
    settings: BenchSettings | None = None,
    rates: Sequence[float] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a small model per mixer and seed on a task of symbols, and measure what it learnt.

    Every model of a seed sees the same batches; all are tested on the same rows. A run that was stopped goes on after
    the last model that was finished.

    Args:
      task: a name of `ROW_TASKS`.   out: folder for record.json.
      mixers: letters (`mixers.LETTERS`), names or addresses, `settings.layers` layers of each; or stacks of two
        letters or more ("DA", "D*3 A"), a layer per letter.   seeds: models per mixer.
      settings: of models and training; default `BenchSettings()`.
      rates: learning rates, of which each mixer gets its best (see `with_best_rate`); default RATES, or with settings
        their own `lr` for all.
      overwrite: replace a result of other settings that `out` holds, and models of a task of other sizes.
      progress: called with (models done, models in all, what is trained).
    Returns: the record's fields; `rows`: per mixer, seed and length {mixer, seed, length, accuracy, loss, parameters,
      state_bytes (of one row of the greatest test length), lr, seconds, ...}; `summary`: per mixer and length {mixer,
      length, accuracy, low, high, loss, lr, n, ...}.
    Raises: ConfigError for an unknown task or mixer, and no rates; InputError as of `claim_folder`, and for models in
      `out` that were trained on a task of this name whose sizes or rows were others.
    """
    if rates is None:
        rates = RATES if settings is None else [settings.lr]
    if not rates:
        raise ConfigError("rates is empty; expected at least one learning rate.")
    # Made for all rates, though used for one: a wrong rate is refused before any training.
    per_rate = [dataclasses.replace(settings or BenchSettings(), lr=rate) for rate in rates]
    settings = per_rate[0] if len(rates) == 1 else settings or BenchSettings()
    kind = _task(task)
    names = _mixer_names(mixers, seeds)
    asked = {
        "task": task,
        "mixers": names,
        "seeds": seeds,
        "settings": asdict(settings),
        "rates": list(rates),
    }
    folder = claim_folder(out, "bench", identity=asked, overwrite=overwrite)
    rows = _every_row(folder, kind(), names, seeds, settings, rates, progress or (lambda *_: None), overwrite)
    fields = {
        **asked,
        "about": kind.about,
        "chance": kind.chance,
        "source": kind.source,
        "rows": rows,
        "summary": summary(rows, names),
    }
    write_record(folder, "bench", **fields)
    return fields


def _every_row(
    folder: Path,
    task: RowTask,
    names: Sequence[str],
    seeds: int,
    settings: BenchSettings,
    rates: Sequence[float],
    progress: Progress,
    overwrite: bool,
) -> list[dict[str, Any]]:
    """Train every mixer and seed; see `bench`."""
    get = functools.partial(train_model, overwrite=overwrite)
    rows: list[dict[str, Any]] = []
    best: dict[str, BenchSettings] = {}
    plan = [(name, seed) for seed in range(seeds) for name in names]
    for done, (name, seed) in enumerate(plan):
        progress(done, len(plan), f"{name}, seed {seed}")
        if len(rates) > 1 and name not in best:
            best[name] = with_best_rate(folder, task, name, settings, rates, get=get) or settings
        rows += get(folder, task, name, seed, best.get(name, settings))
    progress(len(plan), len(plan), "")
    return rows


def _task(name: str) -> type[RowTask]:
    if name not in ROW_TASKS:
        raise ConfigError(f"There is no task {name!r} to train on; expected one of {', '.join(ROW_TASKS)}.")
    return ROW_TASKS[name]


def _mixer_names(given: Sequence[str], seeds: int) -> list[str]:
    """Return the names of the mixers to train.

    Raises: ConfigError for an unknown mixer, one named twice, and for no mixers or seeds.
    """
    names = [_mixer_name(one) for one in given]
    if seeds < 1 or not names or len(set(names)) < len(names):
        raise ConfigError(
            f"seeds is {seeds} and mixers {list(given)}; expected one or more of each, no mixer twice."
        )
    return names


def _mixer_name(given: str) -> str:
    """Return the name or address of a mixer given by its letter, or a stack of letters.

    Raises: ConfigError for an unknown mixer.
    """
    name = LETTERS.get(given, given)
    if _is_stack(name):
        return parse_stack(name)
    MIXERS.get(name)
    return name


def _is_stack(name: str) -> bool:
    """Stacks are written in capitals, names and addresses of mixers are not."""
    return name.isupper()


def trained_model(
    folder: Path, task: RowTask, mixer: str, seed: int, settings: BenchSettings
) -> list[dict[str, Any]] | None:
    """Return the rows of one model that an earlier run trained, as `train_model` does; None: there are none.

    Raises: InputError where the task that the model was trained on had other sizes or other rows.
    """
    path = _part_path(folder, task, mixer, seed, settings)
    try:
        found = read_json(path)
        lengths = [row["length"] for row in found if "validation_loss" in row]
        kept = [row.pop(_TASK, None) for row in found]
    except (InputError, TypeError, KeyError, AttributeError):
        return None  # not there, torn, or no rows
    # Earlier versions did not write what task it was.
    there = next((one for one in kept if isinstance(one, dict)), {})
    current = task.identity() if there else {}
    different = [(name, there[name], now) for name, now in current.items() if there.get(name, now) != now]
    if different:
        name, before, now = different[0]
        raise InputError(
            f"{path} holds a model of {mixer} that was trained on another task {task.name!r}: {name} was "
            f"{_short(before)} and is {_short(now)}. Name another folder, or train it anew with --overwrite."
        )
    return found if lengths == list(task.test_lengths) else None


def _short(value: Any) -> str:
    """Write a value; a list of many numbers as its first and last."""
    if isinstance(value, list) and len(value) > _NUM_NAMED:
        return f"{len(value)} numbers from {value[0]} to {value[-1]}"
    return f"{value}"


def with_best_rate(
    folder: Path,
    task: RowTask,
    mixer: str,
    settings: BenchSettings,
    rates: Sequence[float],
    *,
    get: Callable[..., list[dict[str, Any]] | None] | None = None,
) -> BenchSettings | None:
    """Return the settings with the rate whose model of seed 0 has the least loss on validation rows.

    Those are drawn as training rows are, at the test lengths, by a seed of their own; the mean loss of the lengths
    counts.

    Args: as of `train_model`; rates: those tried; get: `train_model` or `trained_model`, default the first.
    Returns: None where `get` has no rows of one of the models.
    """
    losses = []
    for rate in rates:
        rows = (get or train_model)(folder, task, mixer, 0, dataclasses.replace(settings, lr=rate))
        if rows is None:
            return None
        losses.append(float(np.mean([row["validation_loss"] for row in rows])))
    # A loss that is not a number is of a training that blew up.
    return dataclasses.replace(settings, lr=rates[int(np.argmin(np.nan_to_num(losses, nan=np.inf)))])


def train_model(
    folder: Path, task: RowTask, mixer: str, seed: int, settings: BenchSettings, *, overwrite: bool = False
) -> list[dict[str, Any]]:
    """Return the rows of one model: those of an earlier run, or of a model that is trained now.

    Args:
      folder: where the rows of each model are kept, in `parts`.   mixer: a name or address of a mixer, or a stack of
        letters.   overwrite: train anew what was trained on another task of this name.   Others: as of `bench`.
    Returns: a row per test length {mixer, seed, length, accuracy, loss (nats), validation_accuracy, validation_loss,
      lr, parameters, state_bytes, seconds}.
    Raises: InputError as of `trained_model`, unless `overwrite`.
    """
    try:
        rows = trained_model(folder, task, mixer, seed, settings)
    except InputError:
        if not overwrite:
            raise
        rows = None
    if rows is None:
        rows = _train_and_test(task, mixer, seed, settings)
        path = _part_path(folder, task, mixer, seed, settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        identity = task.identity()
        write_json(path, [{**row, _TASK: identity} for row in rows])
    return rows


def _part_path(folder: Path, task: RowTask, mixer: str, seed: int, settings: BenchSettings) -> Path:
    identity = fingerprint([task.name, mixer, seed, asdict(settings)])[:24]
    return folder / PARTS_NAME / f"{identity}.json"


def _train_and_test(task: RowTask, mixer: str, seed: int, settings: BenchSettings) -> list[dict[str, Any]]:
    started = time.perf_counter()
    torch.manual_seed(seed)
    model = _model(task, mixer, settings)
    _train(model, task, seed, settings)
    blocks: Any = model.model.layers
    fixed = {
        "mixer": mixer,
        "seed": seed,
        "lr": settings.lr,
        "parameters": sum(one.numel() for one in model.parameters()),
        "state_bytes": sum(block.attn.state_bytes(max(task.test_lengths)) for block in blocks),
        "seconds": round(time.perf_counter() - started, 1),
    }
    found = []
    for length in task.test_lengths:
        accuracy, loss = _test(model, task.test_rows, _TEST_SEED, length, settings)
        kept = _test(model, task.rows, _VALIDATION_SEED, length, settings)
        validation = {"validation_accuracy": kept[0], "validation_loss": kept[1]}
        found.append({**fixed, "length": length, "accuracy": accuracy, "loss": loss, **validation})
    return found


def _model(task: RowTask, mixer: str, settings: BenchSettings) -> LonglodeForCausalLM:
    width = 2 * settings.hidden_size
    if settings.parameters is not None:
        # Parameters grow by the same number with each unit of the MLPs' width.
        least, next_one = (
            sum(one.numel() for one in _model_of_width(task, mixer, settings, size).parameters())
            for size in (1, 2)
        )
        width = max(1, 1 + round((settings.parameters - least) / (next_one - least)))
    torch.manual_seed(torch.initial_seed())  # the models made to count drew numbers
    return _model_of_width(task, mixer, settings, width)


def _model_of_width(task: RowTask, mixer: str, settings: BenchSettings, width: int) -> LonglodeForCausalLM:
    model = LonglodeForCausalLM(
        LonglodeConfig(
            vocab_size=task.vocabulary,
            hidden_size=settings.hidden_size,
            num_heads=settings.num_heads,
            intermediate_size=width,
            layers=_layers(mixer, settings),
            window=max(2, min(task.train_lengths) // 2),
            allow_neg_eigval=settings.allow_neg_eigval,
            tie_word_embeddings=settings.tie_embeddings,
            initializer_range=settings.initializer_range or settings.hidden_size**-0.5,
        )
    )
    if (decoder := task.decoder(settings.hidden_size)) is not None:
        setattr(model, _DECODER, decoder)
    return model


def _layers(mixer: str, settings: BenchSettings) -> list[Any]:
    """Mixer of each layer, and what stands around it."""
    stack: list[Any] = (
        [LETTERS[letter] for letter in mixer] if _is_stack(mixer) else [mixer] * settings.layers
    )
    return stack if settings.front is None else [{"mixer": settings.front, "block": "mixer"}, *stack]


def _train(model: LonglodeForCausalLM, task: RowTask, seed: int, settings: BenchSettings) -> None:
    rng = np.random.default_rng([seed, len(task.name)])
    optimizer = _optimizer(model, settings)
    warmup = max(1, settings.steps // 10)
    model.train()
    for step in range(settings.steps):
        rate = min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / settings.steps))
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * rate * group["lr_scale"]
        rows = task.rows(rng, settings.batch_size, int(rng.choice(task.train_lengths)))
        loss, aux_loss, _ = _read(model, rows)
        (loss if aux_loss is None else loss + aux_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _optimizer(model: LonglodeForCausalLM, settings: BenchSettings) -> torch.optim.AdamW:
    """Make AdamW that treats the parameters of mixers as they ask; elsewhere matrices decay, but no embeddings."""
    rules = rules_of(model)
    vocabulary = {id(model.get_input_embeddings().weight), id(model.lm_head.weight)}
    groups: dict[ParameterRule, list[torch.nn.Parameter]] = {}
    for one in model.parameters():
        default = ParameterRule(one.ndim == 2 and id(one) not in vocabulary)
        groups.setdefault(rules.get(id(one), default), []).append(one)
    used = [
        {"params": held, "weight_decay": settings.weight_decay * rule.decays, "lr_scale": rule.lr_scale}
        for rule, held in groups.items()
    ]
    return torch.optim.AdamW(used, lr=settings.lr, betas=(0.9, 0.98), fused=True)


def _read(model: LonglodeForCausalLM, rows: Rows) -> tuple[torch.Tensor, torch.Tensor | None, np.ndarray]:
    """Mean loss of the asked places, the mixers' auxiliary loss, and whether each asked place is right."""
    labels = torch.from_numpy(rows.labels)
    places = labels != NOT_ASKED
    body = model.base_model(input_ids=torch.from_numpy(rows.tokens), use_cache=False)
    hidden, decoder = body.last_hidden_state, getattr(model, _DECODER, None)
    logits = (model.lm_head(hidden[places]) if decoder is None else decoder(hidden)[places]).float()
    loss = F.cross_entropy(logits, labels[places])
    picked = logits.detach().argmax(-1)
    if rows.allowed is None:
        right = (picked == labels[places]).numpy()
    else:
        allowed = torch.from_numpy(rows.allowed)[places]
        right = allowed.gather(-1, picked[:, None])[:, 0].numpy()
    return loss, body.aux_loss, right


def _test(
    model: LonglodeForCausalLM,
    draw: Callable[[np.random.Generator, int, int], Rows],
    seed: int,
    length: int,
    settings: BenchSettings,
) -> tuple[float, float]:
    """Share right and mean loss (nats) on the rows of `length` tokens that `draw` makes with a seed."""
    rng = np.random.default_rng([seed, length])
    model.eval()
    hits: list[np.ndarray] = []
    nats = 0.0
    with torch.inference_mode():
        for start in range(0, settings.test_rows, settings.batch_size):
            rows = draw(rng, min(settings.batch_size, settings.test_rows - start), length)
            loss, _, right = _read(model, rows)
            hits.append(right)
            nats += float(loss) * len(right)
    every = np.concatenate(hits)
    return float(every.mean()), nats / len(every)


def summary(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return mean and 95 % bootstrap interval over seeds, per mixer and length, of rows of `train_model`."""
    found = []
    for name in names:
        for length in dict.fromkeys(row["length"] for row in rows):
            part = [row for row in rows if (row["mixer"], row["length"]) == (name, length)]
            accuracy, low, high = bootstrap_mean([row["accuracy"] for row in part])
            found.append(
                {
                    "mixer": name,
                    "length": length,
                    "accuracy": accuracy,
                    "low": low,
                    "high": high,
                    "least": min(row["accuracy"] for row in part),
                    "greatest": max(row["accuracy"] for row in part),
                    "loss": float(np.mean([row["loss"] for row in part])),
                    "lr": part[0].get("lr"),
                    "parameters": part[0]["parameters"],
                    "state_bytes": part[0]["state_bytes"],
                    "seconds": float(np.mean([row["seconds"] for row in part])),
                    "n": len(part),
                }
            )
    return found
