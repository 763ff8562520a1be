"""Training from a recipe and shards: `longlode.train(...)`, also used by the command `train`."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlode.core.batch import Batch
from longlode.core.errors import ConfigError, InputError
from longlode.core.outputs import claim_folder, full_path
from longlode.core.processes import started_rank
from longlode.core.records import read_record

if TYPE_CHECKING:
    from longlode.packing import Mixture, PackingReport, Schedule, Shards, SourceReport
    from longlode.train import Recipe, TrainSummary
    from longlode.train.world import World

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """Plan of a run.

    num_tokens, num_documents: of the shards. num_steps: of the run, None if only time limits it; max_seconds: that
    limit. packing: figures of the packer. mixture: of each group. warnings: settings that will not have the effect
    that they seem to have.
    """

    num_parameters: int
    device: str
    threads: int
    num_documents: int
    num_tokens: int
    tokens_per_step: int
    num_steps: int | None
    max_seconds: float | None
    packer: str
    packing: "PackingReport"
    warnings: tuple[str, ...]
    mixture: "tuple[SourceReport, ...]" = ()

    def in_words(self) -> str:
        """Lines for the terminal: two, and one per group of a mixture."""
        if self.num_steps is None:
            length = "until its time is over"
        else:
            total = self.num_steps * self.tokens_per_step
            length = (
                f"{self.num_steps:,} steps of {self.tokens_per_step:,} tokens, {total:,} in all "
                f"({total / max(1, self.num_tokens):.2g} times the data)"
            )
        return (
            f"{self.num_parameters:,} parameters on {self.device}, {self.num_tokens:,} tokens of "
            f"{self.num_documents:,} documents; {length}.\nPacker {self.packer}: {self.packing.in_words()}."
            + "".join(f"\n  {source.in_words()}" for source in self.mixture)
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
    from longlode.train.world import joined

    folder = full_path(out)
    tell = say if say is not None and started_rank() == 0 else (lambda line: None)
    chosen = _choose_recipe(recipe, folder, list(set_), resume, tell)
    with joined(chosen.run.rank_seconds) as world:
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
    if not chosen.data.shards:
        raise ConfigError(
            "The recipe names no shards; make some with longlode pack, then add --set data.shards=FOLDER."
        )
    known = _verified_shards(folder) if resume else None
    # Rank 0 verifies first, so that the others do not read shards that are damaged.
    facts = world.on_main(lambda: _open_shards(chosen, known, verify, tell)[1])
    shards, _ = _open_shards(chosen, known, False, tell)
    return _train_on(chosen, shards, folder, facts, resume, on_start if world.is_main else None, on_step)


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


def _open_shards(
    recipe: "Recipe", known: list[str] | None, verify: bool | None, tell: Say
) -> "tuple[Shards, dict[str, Any]]":
    """The shards of a recipe, and the fields of the run's record on them.

    Args: known: the shards that an earlier session of the run has verified; verify: as in `train_run`.
    """
    from longlode.packing import open_shards

    named = recipe.data.shards
    folders = [named] if isinstance(named, str) else list(named or [])
    paths = [str(Path(folder).resolve()) for folder in folders]
    if verify is None:
        verify = known != paths
    if verify:
        tell("Verifying the checksums of the shards.")
    shards = open_shards(folders, verify=verify)
    return shards, {"shards": paths, "verified": verify or known == paths}


def _verified_shards(run: Path) -> list[str] | None:
    """Shards whose checksums were right by the record of a run; None without such a record."""
    try:
        data = read_record(run, "run").get("data", {})
    except InputError:
        return None
    return data.get("shards") if data.get("verified") else None


def _train_on(
    recipe: "Recipe",
    shards: "Shards",
    out: Path,
    data_facts: dict[str, Any],
    resume: bool,
    on_start: Callable[[RunStart], None] | None,
    on_step: Callable[[dict[str, Any]], None] | None,
) -> "TrainSummary":
    """Plan the rows, build the model, and run the loop."""
    from longlode.packing import make_packer, plan
    from longlode.train import build_model, train

    data = recipe.data
    packer = make_packer(data.packer, data.packer_options)
    stream = partial(_stream, recipe, shards, packer)
    # Both sides are asked for a batch before anything is made: a run must not fail for want of data at its end.
    for split in ("train", "heldout") if data.heldout_fraction else ("train",):
        next(stream(split, 0))
    schedule = plan(
        shards,
        packer,
        length=data.length,
        batch_size=data.batch_size,
        seed=recipe.run.seed,
        heldout_fraction=data.heldout_fraction,
        mix=_mixture(recipe),
    )
    report = schedule.report()
    model = build_model(recipe, shards.vocab_size, eos_token_id=shards.eos_id)
    if on_start is not None:
        on_start(_start(recipe, model, shards, report, _mixed(schedule, recipe.num_steps)))
    return train(
        model,
        lambda step: stream("train", step),
        recipe,
        out,
        data_fingerprint=shards.fingerprint,
        resume=resume,
        heldout=(lambda: stream("heldout", 0)) if data.heldout_fraction else None,
        tokenizer_folder=shards.tokenizer_folder,
        on_step=on_step,
        data_facts=data_facts | {"packing": vars(report)} | _mixture_facts(schedule, recipe.num_steps),
    )


def _stream(recipe: "Recipe", shards: "Shards", packer: Any, split: str, start_step: int) -> Iterator[Batch]:
    from longlode.packing import batches

    data = recipe.data
    return batches(
        shards,
        length=data.length,
        batch_size=data.batch_size,
        seed=recipe.run.seed,
        # Held-out losses are of the same rows whatever the packer, so that they can be compared.
        packer=packer if split == "train" else "concat",
        start_step=start_step,
        packed=data.packed,
        heldout_fraction=data.heldout_fraction,
        split=split,
        mix=_mixture(recipe) if split == "train" else None,
    )


def _mixture(recipe: "Recipe") -> "Mixture | None":
    from longlode.packing import Mixture

    return None if recipe.data.mix is None else Mixture.parse(recipe.data.mix, recipe.data.mix_epochs)


def _mixed(schedule: "Schedule", num_steps: int | None) -> "tuple[SourceReport, ...]":
    """The parts of a run that come from each group; of a run limited by time, in as many steps as there are rows."""
    from longlode.packing import MixedSchedule

    if not isinstance(schedule, MixedSchedule):
        return ()
    return tuple(schedule.sources(num_steps or schedule.num_rows))


def _mixture_facts(schedule: "Schedule", num_steps: int | None) -> dict[str, Any]:
    """Field of the run's record on its mixture."""
    found = _mixed(schedule, num_steps)
    return {"mixture": [vars(source) for source in found]} if found else {}


def _start(
    recipe: "Recipe",
    model: Any,
    shards: "Shards",
    report: "PackingReport",
    mixture: "tuple[SourceReport, ...]",
) -> RunStart:
    import torch

    warnings = []
    steps, warmup = recipe.num_steps, recipe.optim.warmup_steps
    if steps is not None and warmup >= steps:
        warnings.append(
            f"optim.warmup_steps is {warmup:,} and the run has {steps:,} steps: the learning rate never reaches "
            "optim.lr."
        )
    return RunStart(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        device=str(next(model.parameters()).device),
        threads=recipe.run.threads or torch.get_num_threads(),
        num_documents=shards.num_documents,
        num_tokens=shards.num_tokens,
        tokens_per_step=recipe.data.batch_size * recipe.data.length,
        num_steps=steps,
        max_seconds=recipe.run.max_seconds,
        packer=recipe.data.packer,
        packing=report,
        mixture=mixture,
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
