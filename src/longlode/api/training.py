"""Training from a recipe and shards: `longlode.train(...)`, also used by the command `train`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlode.api.training_data import RunData, mixed_sources, open_run_data
from longlode.core.errors import InputError
from longlode.core.outputs import claim_folder, full_path
from longlode.core.processes import started_rank
from longlode.core.records import read_jsonl, read_record

if TYPE_CHECKING:
    from longlode.packing import PackingReport, SourceReport
    from longlode.parallel.world import World
    from longlode.train import Recipe, TrainSummary
    from longlode.train.replay import Replay
    from longlode.train.stages import Stage

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class StageStart:
    """Plan of a stage of a run; of a recipe without stages, of the run.

    name: "" without stages. num_steps: None if only time limits it. packing: figures of the packer. mixture: of each
    group. length: of its rows, in tokens.
    """

    name: str
    num_steps: int | None
    tokens_per_step: int
    length: int
    packer: str
    packing: "PackingReport"
    mixture: "tuple[SourceReport, ...]" = ()

    def in_words(self) -> str:
        """Lines for the terminal: one, and one per group of a mixture."""
        start = f"Packer {self.packer}"
        if self.name:
            total = (self.num_steps or 0) * self.tokens_per_step
            length = f"{self.num_steps:,} steps, {total:,} tokens in rows of {self.length:,}"
            start = f"Stage {self.name}: {length}; packer {self.packer}"
        return f"{start}: {self.packing.in_words()}." + "".join(
            f"\n  {source.in_words()}" for source in self.mixture
        )


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """Plan of a run.

    num_tokens, num_documents: of the shards. num_steps: of the run, None if only time limits it; max_seconds: that
    limit. total_tokens: of the steps, None likewise. stages: one without stages. flops_per_second: of a
    matrix product in dtype, measured now, which MFU is a share of. warnings: settings that will not have
    the effect that they seem to have.
    """

    num_parameters: int
    device: str
    threads: int
    num_documents: int
    num_tokens: int
    num_steps: int | None
    total_tokens: int | None
    max_seconds: float | None
    stages: tuple[StageStart, ...]
    flops_per_second: float
    dtype: str
    warnings: tuple[str, ...]

    def in_words(self) -> str:
        """Lines for the terminal: one on the run, then those of each stage."""
        if self.num_steps is None or self.total_tokens is None:
            length = "until its time is over"
        else:
            each = "" if len(self.stages) > 1 else f" of {self.stages[0].tokens_per_step:,} tokens"
            length = (
                f"{self.num_steps:,} steps{each}, {self.total_tokens:,} in all "
                f"({self.total_tokens / max(1, self.num_tokens):.2g} times the data)"
            )
        return "\n".join(
            (
                f"{self.num_parameters:,} parameters on {self.device}, {self.num_tokens:,} tokens of "
                f"{self.num_documents:,} documents; {length}.",
                *(stage.in_words() for stage in self.stages),
                f"MFU: share of {self.flops_per_second / 1e9:,.0f} GFLOP/s, a matrix product in {self.dtype} here.",
            )
        )


def train_run(
    recipe: "str | Path | Recipe | None",
    out: str | Path,
    *,
    set_: Sequence[str] = (),
    resume: bool = False,
    verify: bool | None = None,
    say: Say | None = None,
    on_start: Callable[[RunStart], None] | None = None,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> "TrainSummary":
    """Train a model by a recipe on packed shards; everything is left in the run folder `out`.

    Args:
      recipe: a TOML file or a `Recipe`; with `resume` it may be None.
      set_: overrides, "section.key=value".
      resume: continue the run of `out`, by the recipe of its record; `recipe` is read only if there is no record.
      verify: compare the shards with their checksums; None: before the first step of a run.
      say: called with messages for the user; on_start: with the facts of the run before its first step; on_step:
        with the row of every step.
    Under torchrun every rank calls this with the same arguments; rank 0 alone writes and calls `say`, `on_start` and
    `on_step`.
    Raises: ConfigError for a recipe that is invalid or names no shards; InputError when a side of the split has
      too little data, shards are damaged or the folder holds something else; as `train.train`.
    """
    from longlode.parallel.world import joined

    folder = full_path(out)
    tell = say if say is not None and started_rank() == 0 else (lambda line: None)
    chosen = _choose_recipe(recipe, folder, list(set_), resume, tell)
    with joined(chosen.run.rank_seconds, chosen.parallel.sequence) as world:
        return _train_in(world, chosen, folder, resume, verify, tell, on_start, on_step)


def _train_in(
    world: "World",
    chosen: "Recipe",
    folder: Path,
    resume: bool,
    verify: bool | None,
    tell: Say,
    on_start: Callable[[RunStart], None] | None,
    on_step: Callable[[dict[str, Any]], None] | None,
) -> "TrainSummary":
    """Check the folder and the shards on rank 0, then train on all ranks."""

    def check() -> None:
        claim_folder(folder, "run", advice="go on with its run by --resume", make=False)

    if not resume:
        world.on_main(check)
    known = _verified_shards(folder) if resume else None
    # Rank 0 verifies first, so that the others do not read shards that are damaged.
    facts = world.on_main(lambda: open_run_data(chosen, known, verify, tell).facts)
    data = open_run_data(chosen, known, False, tell)
    return _train_on(chosen, data, folder, facts, resume, on_start if world.is_main else None, on_step)


def replay_run(
    out: str | Path,
    step: int,
    *,
    set_: Sequence[str] = (),
    say: Say | None = None,
    on_step: Callable[[int], None] | None = None,
) -> "Replay":
    """Run a step of the run `out` again, in one process, and say where its numbers come from; nothing is written.

    Args: step: counted from 1, as in metrics.jsonl. set_: overrides of keys that may change, such as data.shards.
    Raises: as `train.replay.replay`; InputError if `out` holds no run.
    """
    from longlode.train import build_model
    from longlode.train.replay import replay

    tell, folder = say or (lambda line: None), full_path(out)
    recipe = _choose_recipe(None, folder, list(set_), True, tell)
    data = open_run_data(recipe, _verified_shards(folder), None, tell)
    metrics = folder / "metrics.jsonl"
    data.recall_shares(read_jsonl(metrics) if metrics.is_file() else [])
    model = build_model(recipe, data.shards.vocab_size, eos_token_id=data.shards.eos_id)
    return replay(
        model,
        data.batches,
        recipe,
        folder,
        step,
        data_fingerprint=data.fingerprint,
        describe=data.describe,
        on_step=on_step,
    )


def _choose_recipe(
    recipe: "str | Path | Recipe | None", out: Path, overrides: list[str], resume: bool, tell: Say
) -> "Recipe":
    """Recipe of the run that is continued, else the given one; with the overrides."""
    from longlode.train import Recipe

    if resume and (saved := _recorded_recipe(out)) is not None:
        if recipe is not None:
            tell(f"The recipe is the one that the run began with, as {out}/record.json has it.")
        return Recipe.parse(saved, overrides, where=f"The recipe of {out}")
    if recipe is None:
        raise InputError(
            f"No recipe was given, and {out} holds no run to go on with. Name a recipe, such as recipes/cpu_small.toml."
        )
    if isinstance(recipe, str | Path):
        return Recipe.load(recipe, overrides)
    return Recipe.parse(recipe.resolved(), overrides) if overrides else recipe


def _recorded_recipe(out: Path) -> dict[str, Any] | None:
    try:
        saved = read_record(out, "run").get("recipe")
    except InputError:  # no record yet, or another folder, of which `train` says more
        return None
    return saved if isinstance(saved, dict) else None


def _verified_shards(run: Path) -> list[str] | None:
    """Shards whose checksums were right by the record of a run; None without such a record."""
    try:
        data = read_record(run, "run").get("data", {})
    except InputError:
        return None
    return data.get("shards") if data.get("verified") else None


def _train_on(
    recipe: "Recipe",
    data: RunData,
    out: Path,
    facts: dict[str, Any],
    resume: bool,
    on_start: Callable[[RunStart], None] | None,
    on_step: Callable[[dict[str, Any]], None] | None,
) -> "TrainSummary":
    """Plan the rows, build the model, and run the loop."""
    from longlode.train import build_model, train

    data.check_batches()
    stages = tuple(_stage_start(data, stage) for stage in recipe.stage_list)
    shards = data.shards
    model = build_model(recipe, shards.vocab_size, eos_token_id=shards.eos_id)
    rate = _matrix_rate(recipe, model)
    if on_start is not None:
        on_start(_start(recipe, model, data, stages, rate))
    return train(
        model,
        data.batches,
        recipe,
        out,
        data_fingerprint=data.fingerprint,
        resume=resume,
        heldout=data.heldout if recipe.data.heldout_fraction else None,
        tokenizer_folder=shards.tokenizer_folder,
        on_step=on_step,
        data_facts=facts | _packing_facts(stages),
        describe=data.describe,
        flops_per_second=rate,
        skill_it=data.skill_it,
    )


def _matrix_rate(recipe: "Recipe", model: Any) -> float:
    """Measured rate of a matrix product in the run's dtype on its device, by its threads; cached for the process."""
    import torch

    from longlode.ops.matrix_rate import matrix_rate

    before = torch.get_num_threads()
    threads = recipe.run.threads or before
    try:
        torch.set_num_threads(threads)
        return matrix_rate(str(next(model.parameters()).device), getattr(torch, recipe.run.dtype), threads)
    finally:
        torch.set_num_threads(before)


def _stage_start(data: RunData, stage: "Stage") -> StageStart:
    schedule = data.schedule(stage)
    return StageStart(
        name=stage.name,
        num_steps=stage.num_steps,
        tokens_per_step=stage.data.batch_size * stage.data.length,
        length=stage.data.length,
        packer=stage.data.packer,
        packing=schedule.report(),
        mixture=mixed_sources(schedule, stage.num_steps),
    )


def _packing_facts(stages: tuple[StageStart, ...]) -> dict[str, Any]:
    """Fields of the run's record on its rows: of the run, or of each stage by name."""
    found = [
        {"packing": vars(stage.packing)}
        | ({"mixture": [vars(source) for source in stage.mixture]} if stage.mixture else {})
        for stage in stages
    ]
    if len(stages) == 1 and not stages[0].name:
        return found[0]
    return {"stages": {stage.name: facts for stage, facts in zip(stages, found, strict=True)}}


def _start(
    recipe: "Recipe", model: Any, data: RunData, stages: tuple[StageStart, ...], rate: float
) -> RunStart:
    import torch

    warnings = list(data.warnings())
    for stage in recipe.stage_list:
        steps, warmup = stage.num_steps, stage.optim.warmup_steps
        if steps is not None and warmup >= steps:
            of = f"stage {stage.name}" if stage.name else "the run"
            warnings.append(
                f"warmup_steps is {warmup:,} and {of} has {steps:,} steps: the learning rate never reaches lr."
            )
    total = (
        None
        if recipe.num_steps is None
        else sum((one.num_steps or 0) * one.tokens_per_step for one in stages)
    )
    return RunStart(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        device=str(next(model.parameters()).device),
        threads=recipe.run.threads or torch.get_num_threads(),
        num_documents=data.shards.num_documents,
        num_tokens=data.shards.num_tokens,
        num_steps=recipe.num_steps,
        total_tokens=total,
        max_seconds=recipe.run.max_seconds,
        stages=stages,
        flops_per_second=rate,
        dtype=recipe.run.dtype,
        warnings=tuple(warnings),
    )


class Estimate:
    """Estimate of a run's end, from the speed of its steps so far in this session."""

    def __init__(self, num_steps: int | None, max_seconds: float | None) -> None:
        """Args: num_steps of the whole run, None if unknown; max_seconds of the recipe."""
        self._num_steps, self._max_seconds = num_steps, max_seconds
        self._first: tuple[int, float] | None = None

    def seconds_left(self, row: dict[str, Any]) -> float | None:
        """Seconds until the end after a step's row; None while there is nothing to judge by."""
        now = time.monotonic()
        if self._first is None:  # the first step is slow: kernels are compiled, memory is claimed
            self._first = (row["step"], now)
            return None
        steps, seconds = row["step"] - self._first[0], now - self._first[1]
        left = None
        if self._num_steps is not None and steps > 0:
            left = (self._num_steps - row["step"]) * seconds / steps
        if self._max_seconds is not None:
            by_clock = max(0.0, self._max_seconds - row["seconds"])
            left = by_clock if left is None else min(left, by_clock)
        return left
