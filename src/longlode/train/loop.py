"""The training loop. Read `train`, `run_steps`, `training_step`, in this order.

A step is: forward, backward, gradients summed over the ranks, all ranks agree that loss and gradient norm are finite,
clip, step. Every rank knows the whole batch and reads its share of it. The loop's state is weights, moments, random
state and one `RunState`; all of it is in every checkpoint, and data comes from `batches(step)`. So 5 steps, a kill and
5 more steps give bit for bit the result of 10 steps.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from longlode.core.batch import Batch
from longlode.core.errors import ConfigError, InputError, LonglodeError
from longlode.ops.host_memory import keep_freed_memory
from longlode.parallel.world import World, joined
from longlode.train.checkpoint import RunState
from longlode.train.division import UNDIVIDED, Division, divided
from longlode.train.enter_stage import Entrance
from longlode.train.interrupt import StopSignal
from longlode.train.objectives import Objective, make_objective
from longlode.train.optim import build_optimizer, learning_rate
from longlode.train.parts import micro_batches
from longlode.train.recipe import Recipe, RunSection
from longlode.train.run_folder import RunFolder
from longlode.train.sequence import shared_rows
from longlode.train.sharding import shard_model
from longlode.train.skill_it import SkillIt
from longlode.train.skips import Limits, judge_skip, remember, spike_limits
from longlode.train.stages import Stage, stage_at
from longlode.train.step import NEXT_TOKEN, StepResult, autocast, training_step
from longlode.train.usage import Usage

__all__ = ["NEXT_TOKEN", "Session", "StepResult", "TrainSummary", "micro_batches", "train", "training_step"]


@dataclass(frozen=True)
class TrainSummary:
    """Result of a session of `train`."""

    status: str
    """One of: finished; time_limit (max_seconds, scheduled by steps); interrupted (by a signal; resume continues)."""
    step: int
    tokens: int
    seconds: float
    skips: int
    loss: float | None
    """Newest logged training loss, nats per token."""
    eval_loss: float | None
    """Newest held-out loss, nats per token."""
    resumed_from: int | None
    """Step of the checkpoint that this session began with."""
    model_folder: Path | None
    """Hugging Face folder of the trained model; None if interrupted."""


@dataclass
class Session:
    """The objects that `run_steps` needs in one process of a run."""

    model: PreTrainedModel
    objectives: list[Objective]
    """One per stage."""
    optimizer: torch.optim.Optimizer
    recipe: Recipe
    run: RunFolder
    state: RunState
    heldout: Callable[[], Iterable[Batch]] | None
    on_step: Callable[[dict[str, Any]], None] | None
    division: Division = UNDIVIDED
    describe: Callable[[int], list[dict[str, Any]]] | None = None
    usage: Usage | None = None
    skill_it: SkillIt | None = None

    @property
    def world(self) -> World:
        """The ranks of the run."""
        return self.division.world


def train(
    model: PreTrainedModel,
    batches: Callable[[int], Iterator[Batch]],
    recipe: Recipe,
    run_dir: str | Path,
    *,
    data_fingerprint: str,
    resume: bool = False,
    heldout: Callable[[], Iterable[Batch]] | None = None,
    tokenizer_folder: str | Path | None = None,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    data_facts: dict[str, Any] | None = None,
    describe: Callable[[int], list[dict[str, Any]]] | None = None,
    flops_per_second: float | None = None,
    skill_it: SkillIt | None = None,
) -> TrainSummary:
    """Train `model` by `recipe`; all output is written to `run_dir`.

    Args:
      model: a causal language model of longlode or transformers, on its device.
      batches: `batches(step)` yields the batch of that step (from 0), then of the next, and so on.
      data_fingerprint: hash of the data; a checkpoint of other data is refused.
      resume: continue from the newest checkpoint that verifies. Without it, `run_dir` must be empty.
      heldout: yields the same held-out batches at every call; the first `run.eval_batches` give eval_loss.
      tokenizer_folder: its tokenizer files are copied beside the final model.
      on_step: called on rank 0 after every step with its metrics row.
      data_facts: facts about the data for the run's record, under `data`.
      describe: `describe(step)` names the documents of a batch, for skipped.jsonl.
      flops_per_second: of one rank's device (`ops.matrix_rate`); then rows have `mfu`, the share of it that was used.
      skill_it: shares that follow held-out losses; then `batches` reads its `changes`, and is called after each.
    Under torchrun every rank calls this with the same arguments, a model on its own device, and the same batches; rank
    0's weights are taken.
    Raises: RankError when another rank ends or does not answer; CheckpointError as in `RunFolder.restore`; InputError
      if `batches` ends; LonglodeError that names a step that is not finite. Checkpoints made before an error are kept.
    """
    objectives = make_objectives(recipe)
    with joined(recipe.run.rank_seconds, recipe.parallel.sequence) as world:
        run = RunFolder(Path(run_dir), recipe, data_fingerprint, data_facts, world)
        with run.opened():
            torch.manual_seed(recipe.run.seed + world.rank)
            world.copy_from_main(model.state_dict().values())
            if recipe.run.shard:
                shard_model(model, world)
            optimizer = build_optimizer(model, recipe.optim)
            state = run.restore(model, optimizer, resume)
            usage = None if flops_per_second is None else Usage(model, world.size * flops_per_second)
            run.start_record(model, state, flops_per_second)
            try:
                with divided(world, recipe, model) as division:
                    hooks = (heldout, on_step, division, describe, usage, skill_it)
                    session = Session(model, objectives, optimizer, recipe, run, state, *hooks)
                    status, folder = _run_session(session, batches, tokenizer_folder)
            except Exception as error:
                with contextlib.suppress(LonglodeError):  # a full disk here must not hide the first error
                    run.write_record("failed", state, reason=str(error))
                raise
            run.write_record(status, state)
    return _summary(run, state, status, folder)


def make_objectives(recipe: Recipe) -> list[Objective]:
    """Make the objective of each stage. Raises: ConfigError as `make_objective`."""
    return [
        make_objective(stage.optim.objective, stage.optim.objective_options) for stage in recipe.stage_list
    ]


def _summary(run: RunFolder, state: RunState, status: str, folder: Path | None) -> TrainSummary:
    return TrainSummary(
        status=status,
        step=state.step,
        tokens=state.tokens,
        seconds=state.seconds,
        skips=state.skips,
        loss=run.loss,
        eval_loss=run.eval_loss,
        resumed_from=run.resumed_from,
        model_folder=folder,
    )


def _run_session(
    session: Session, batches: Callable[[int], Iterator[Batch]], tokenizer_folder: str | Path | None
) -> tuple[str, Path | None]:
    """Take the steps, evaluate, save; return the status and, unless interrupted, the folder of the model."""
    model, run, state = session.model, session.run, session.state
    if session.skill_it is not None:
        session.skill_it.restore(state.skill_it)
        state.skill_it = session.skill_it.saved()
    how = session.recipe.run
    with settings_of(how), recomputing(model, how.gradient_checkpointing), StopSignal() as stop:
        status = run_steps(session, batches, stop)
        if status != "interrupted":
            evaluate_heldout(session)
        run.save(model, session.optimizer, state)
        if status == "interrupted":
            return status, None
        tokenizer = Path(tokenizer_folder) if tokenizer_folder else None
        return status, run.export(model, tokenizer)


def run_steps(session: Session, batches: Callable[[int], Iterator[Batch]], stop: StopSignal) -> str:
    """Take steps until the run ends or must stop, logging and saving on the way; return the status."""
    recipe, run, state = session.recipe, session.run, session.state
    stream = batches(state.step)
    clock = _Clock(session.world, state.seconds)
    saved = 0.0
    entrance = Entrance(session.model, session.optimizer, recipe.stage_list)
    stage = stage_at(recipe.stage_list, state.step)
    entrance.enter(stage, state)
    while (status := _why_stop(recipe, state, *clock.agree(stop))) is None:
        batch = next(stream, None)
        if batch is None or batch.num_tokens == 0:
            raise InputError(f"The data gave no labels for step {state.step + 1}; expected a batch of them.")
        step_began = time.monotonic()
        with session.world.watched():
            taken = take_step(session, stage, batch)
        step_seconds = time.monotonic() - step_began
        clock.agree(stop)
        state.seconds = clock.run_seconds
        _report(session, stage, batch, taken, step_seconds)
        if recipe.run.eval_every and state.step % recipe.run.eval_every == 0:
            evaluate_heldout(session)
        if session.skill_it is not None and session.skill_it.due(state.step):
            choose_shares(session, session.skill_it)
            stream = batches(state.step)
        following = stage_at(recipe.stage_list, state.step)
        if _checkpoint_due(recipe.run, state.step, clock.session_seconds - saved) or following is not stage:
            run.save(session.model, session.optimizer, state)
            saved = clock.session_seconds
        if following is not stage:
            stage = following
            entrance.enter(stage, state)
    return status


class _Clock:
    """Time by the clock of rank 0, and stop signals of any rank, the same on all ranks."""

    def __init__(self, world: World, run_seconds: float) -> None:
        self._world = world
        self._began = time.monotonic()
        self._before = run_seconds
        self.session_seconds = 0.0

    @property
    def run_seconds(self) -> float:
        """Seconds in the loop at the last `agree`, over all sessions of the run."""
        return self._before + self.session_seconds

    def agree(self, stop: StopSignal) -> tuple[float, bool]:
        """Return the seconds of this session, and whether a rank has been asked to stop."""
        own = time.monotonic() - self._began if self._world.is_main else 0.0
        self.session_seconds, stopped = self._world.agree([own, float(stop.received is not None)])
        return self.session_seconds, bool(stopped)


@dataclass(frozen=True)
class TakenStep:
    """A step with its learning rate and the limits that it was held to."""

    result: StepResult
    lr: float
    limits: Limits


def take_step(
    session: Session,
    stage: Stage,
    batch: Batch,
    on_gradients: Callable[[nn.Module], None] | None = None,
) -> TakenStep:
    """Take the next step of the run on its batch, and count it. Its result depends on the session's state alone."""
    recipe, state = session.recipe, session.state
    lr = learning_rate(stage.optim, state.step - stage.first_step, _progress(recipe, state, stage))
    limits = spike_limits(stage.optim, state.recent)
    result = training_step(
        session.model,
        batch,
        session.optimizer,
        lr,
        recipe.model_copy(update={"data": stage.data, "optim": stage.optim}),
        session.objectives[stage.number],
        session.division,
        limits=limits,
        on_gradients=on_gradients,
    )
    state.step += 1
    state.tokens += batch.num_tokens
    state.skips += not result.taken
    remember(state.recent, result)
    return TakenStep(result, lr, limits)


def _report(session: Session, stage: Stage, batch: Batch, taken: TakenStep, step_seconds: float) -> None:
    """Log the step that was just counted, judge it, and call `on_step`."""
    recipe, state, result = session.recipe, session.state, taken.result
    row: dict[str, Any] = {"step": state.step, "tokens": state.tokens, "loss": result.loss, "lr": taken.lr}
    row |= {"grad_norm": result.grad_norm, "tokens_per_second": batch.num_tokens / max(step_seconds, 1e-9)}
    row |= {"seconds": state.seconds}
    if session.usage is not None:
        row["mfu"] = session.usage.mfu(batch, step_seconds)
    row |= session.division.facts()
    if stage.name:
        row["stage"] = stage.name
    if not result.taken:
        row |= {"skipped": True, "why": result.why}
    if not result.taken or state.step % recipe.run.log_every == 0 or state.step == recipe.num_steps:
        session.run.log(row | {name: float(value) for name, value in result.metrics.items()})
    if not result.taken:
        session.run.log_skip(row, session.describe)
        judge_skip(state, stage.optim, result, recipe.run.seed, session.run.saved_step, taken.limits)
    if session.on_step is not None and session.world.is_main:
        session.on_step(row)


def evaluate_heldout(session: Session) -> None:
    """Log the loss on the held-out batches, unless there are none or this step's loss is logged already."""
    run = session.run
    if session.heldout is None or run.evaluated_step == session.state.step:
        return
    loss, tokens = _heldout_loss(session, session.heldout(), session.recipe.run.eval_batches)
    run.log({"step": session.state.step, "eval_loss": loss, "eval_tokens": round(tokens)})


def choose_shares(session: Session, skill_it: SkillIt) -> None:
    """Measure the held-out loss of each group, choose the shares of the next steps by them, and log both."""
    count = skill_it.settings.batches
    losses = [_heldout_loss(session, skill_it.heldout(name), count)[0] for name in skill_it.names]
    shares = skill_it.update(session.state.step, losses)
    session.state.skill_it = skill_it.saved()
    by_name = dict(zip(skill_it.names, losses, strict=True))
    session.run.log({"step": session.state.step, "shares": shares, "heldout_losses": by_name})


def _heldout_loss(session: Session, batches: Iterable[Batch], count: int) -> tuple[float, float]:
    """Return the mean next-token loss of the first `count` batches (nats per token), and the tokens; on all ranks."""
    model, recipe, world = session.model, session.recipe, session.world
    model.train(False)
    nats, tokens = torch.zeros((), dtype=torch.float64), 0.0
    with torch.no_grad(), world.watched():
        for _, batch in zip(range(count), batches, strict=False):
            rows = recipe.data.micro_batch_size or recipe.data.batch_size
            for share in session.division.shares(batch, rows, recipe.data.length):
                with shared_rows(model, share.sharing), autocast(model, recipe.run.dtype):
                    nats += float(NEXT_TOKEN.losses(model, share.batch).summed)
            tokens += batch.total_weight
    model.train()
    nats = world.sum({"nats": nats})["nats"]
    if not tokens:
        raise InputError("The held-out batches hold no labels; raise data.heldout_fraction or set it to 0.")
    return float(nats) / tokens, tokens


def _why_stop(recipe: Recipe, state: RunState, session_seconds: float, stopped: bool) -> str | None:
    """Return the status to end with, or None to continue."""
    if recipe.num_steps is not None and state.step >= recipe.num_steps:
        return "finished"
    limit = recipe.run.max_seconds
    if recipe.optim.schedule_by == "time" and limit is not None and state.seconds >= limit:
        return "finished"
    if stopped:
        return "interrupted"
    if recipe.optim.schedule_by == "steps" and limit is not None and session_seconds >= limit:
        return "time_limit"
    return None


def _progress(recipe: Recipe, state: RunState, stage: Stage) -> float:
    """Return the fraction of the stage that is done, 0 at the first step and 1 at the last."""
    if recipe.optim.schedule_by == "time" and recipe.run.max_seconds is not None:
        return state.seconds / recipe.run.max_seconds
    return stage.progress(state.step)


def _checkpoint_due(run: RunSection, step: int, seconds_since: float) -> bool:
    by_step = run.checkpoint_every is not None and step % run.checkpoint_every == 0
    return by_step or (run.checkpoint_seconds is not None and seconds_since >= run.checkpoint_seconds)


@contextlib.contextmanager
def recomputing(model: PreTrainedModel, wanted: bool) -> Iterator[None]:
    """Turn gradient checkpointing on if it is wanted, and off again afterwards.

    Raises: ConfigError for a model that cannot do it.
    """
    if not wanted or model.is_gradient_checkpointing:
        yield
        return
    try:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise ConfigError(
            f"run.gradient_checkpointing is true, and {type(model).__name__} cannot do it: {error} Set it to false."
        ) from None
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()


@contextlib.contextmanager
def settings_of(run: RunSection) -> Iterator[None]:
    """Set threads and determinism as in the recipe, and restore them afterwards; keep freed memory from now on."""
    keep_freed_memory()
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        if run.threads is not None:
            torch.set_num_threads(run.threads)
        torch.use_deterministic_algorithms(run.deterministic or deterministic)
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
