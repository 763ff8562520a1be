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
from torch import Tensor
from transformers import PreTrainedModel

from longlode.core.batch import Batch
from longlode.core.errors import InputError, LonglodeError
from longlode.train.checkpoint import RunState
from longlode.train.enter_stage import Entrance
from longlode.train.interrupt import StopSignal
from longlode.train.objectives import NextToken, Objective, make_objective
from longlode.train.optim import (
    all_ranks_finite,
    build_optimizer,
    clip_gradients,
    gradient_norm,
    learning_rate,
)
from longlode.train.parts import micro_batches, parts_of_rank
from longlode.train.recipe import Recipe, RunSection
from longlode.train.run_folder import RunFolder
from longlode.train.sharding import is_sharded, set_gradient_sync, shard_model
from longlode.train.stages import Stage, stage_at
from longlode.train.world import ALONE, World, joined

__all__ = ["NEXT_TOKEN", "Session", "StepResult", "TrainSummary", "micro_batches", "train", "training_step"]

_LOSS, _AUX_LOSS = "loss", "aux_loss"

NEXT_TOKEN = NextToken()
"""Objective of held-out losses, independent of the training objective."""


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
    world: World = ALONE


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
    Under torchrun every rank calls this with the same arguments, a model on its own device, and the same batches; rank
    0's weights are taken.
    Raises: RankError when another rank ends or does not answer; CheckpointError as in `RunFolder.restore`; InputError
      if `batches` ends; LonglodeError that names a step that is not finite. Checkpoints made before an error are kept.
    """
    objectives = [
        make_objective(stage.optim.objective, stage.optim.objective_options) for stage in recipe.stage_list
    ]
    with joined(recipe.run.rank_seconds) as world:
        run = RunFolder(Path(run_dir), recipe, data_fingerprint, data_facts, world)
        with run.opened():
            torch.manual_seed(recipe.run.seed + world.rank)
            world.copy_from_main(model.state_dict().values())
            if recipe.run.shard:
                shard_model(model, world)
            optimizer = build_optimizer(model, recipe.optim)
            state = run.restore(model, optimizer, resume)
            run.start_record(model, state)
            session = Session(model, objectives, optimizer, recipe, run, state, heldout, on_step, world)
            try:
                status, folder = _run_session(session, batches, tokenizer_folder)
            except Exception as error:
                with contextlib.suppress(LonglodeError):  # a full disk here must not hide the first error
                    run.write_record("failed", state, reason=str(error))
                raise
            run.write_record(status, state)
    return _summary(run, state, status, folder)


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
    with _settings(session.recipe.run), StopSignal() as stop:
        status = run_steps(session, batches(state.step), stop)
        if status != "interrupted":
            evaluate_heldout(session)
        run.save(model, session.optimizer, state)
        if status == "interrupted":
            return status, None
        tokenizer = Path(tokenizer_folder) if tokenizer_folder else None
        return status, run.export(model, tokenizer)


def run_steps(session: Session, stream: Iterator[Batch], stop: StopSignal) -> str:
    """Take steps until the run ends or must stop, logging and saving on the way; return the status."""
    recipe, run, state = session.recipe, session.run, session.state
    clock = _Clock(session.world, state.seconds)
    saved = 0.0
    entrance = Entrance(session.model, session.optimizer, recipe.stage_list)
    stage = stage_at(recipe.stage_list, state.step)
    entrance.enter(stage, state.step)
    while (status := _why_stop(recipe, state, *clock.agree(stop))) is None:
        batch = next(stream, None)
        if batch is None or batch.num_tokens == 0:
            raise InputError(f"The data gave no labels for step {state.step + 1}; expected a batch of them.")
        step_began = time.monotonic()
        lr = learning_rate(stage.optim, state.step - stage.first_step, _progress(recipe, state, stage))
        with session.world.watched():
            result = training_step(
                session.model,
                batch,
                session.optimizer,
                lr,
                recipe.model_copy(update={"data": stage.data, "optim": stage.optim}),
                session.objectives[stage.number],
                session.world,
            )
        step_seconds = time.monotonic() - step_began
        clock.agree(stop)
        state.step += 1
        state.tokens += batch.num_tokens
        state.skips += not result.taken
        state.seconds = clock.run_seconds
        _report(session, stage, batch, result, lr, step_seconds)
        if recipe.run.eval_every and state.step % recipe.run.eval_every == 0:
            evaluate_heldout(session)
        following = stage_at(recipe.stage_list, state.step)
        if _checkpoint_due(recipe.run, state.step, clock.session_seconds - saved) or following is not stage:
            run.save(session.model, session.optimizer, state)
            saved = clock.session_seconds
        if following is not stage:
            stage = following
            entrance.enter(stage, state.step)
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


def _report(
    session: Session, stage: Stage, batch: Batch, result: "StepResult", lr: float, step_seconds: float
) -> None:
    """Log the step that was just counted, judge it, and call `on_step`."""
    recipe, state = session.recipe, session.state
    row: dict[str, Any] = {"step": state.step, "tokens": state.tokens, "loss": result.loss, "lr": lr}
    row |= {"grad_norm": result.grad_norm, "tokens_per_second": batch.num_tokens / max(step_seconds, 1e-9)}
    row |= {"seconds": state.seconds}
    if stage.name:
        row["stage"] = stage.name
    if not result.taken:
        row["skipped"] = True
    if not result.taken or state.step % recipe.run.log_every == 0 or state.step == recipe.num_steps:
        session.run.log(row | {name: float(value) for name, value in result.metrics.items()})
    if not result.taken:
        _judge_skip(session, result)
    if session.on_step is not None and session.world.is_main:
        session.on_step(row)


@dataclass(frozen=True)
class StepResult:
    """Result of a step."""

    loss: float
    """The objective over the whole batch, auxiliary losses not included; nats per label for next_token."""
    grad_norm: float
    """L2 norm of the gradient before clipping."""
    taken: bool
    """False if a loss or the gradient was not finite: then weights and moments are as before."""
    metrics: dict[str, Tensor]
    """Further metrics of the model or the objective, means over the labels; `aux_loss` is added to the loss."""


def training_step(
    model: PreTrainedModel,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    lr: float,
    recipe: Recipe,
    objective: Objective = NEXT_TOKEN,
    world: World = ALONE,
) -> StepResult:
    """Take one step on one batch; micro batches are weighted by the objective, so their number does not matter.

    batch: the whole batch, on every rank; each data rank reads its share. The sum over the ranks of losses and of
    gradients is that of one rank, since each is divided by the weight of the whole batch.
    """
    model.train()
    optimizer.zero_grad(set_to_none=True)
    rows = recipe.data.micro_batch_size or recipe.data.batch_size
    weight = objective.weight(batch)
    found: dict[str, list[Tensor]] = {}
    parts = parts_of_rank(batch, rows, recipe.data.length, world.data_rank, world.data_ranks)
    for number, part in enumerate(parts, 1):
        set_gradient_sync(model, number == len(parts))
        with _autocast(model, recipe.run.dtype):
            losses = objective.losses(model, part)
        counted = {_LOSS: losses.summed / weight}
        if losses.auxiliary is not None:
            counted[_AUX_LOSS] = losses.auxiliary / weight
        minimised = list(counted.values())
        torch.autograd.backward(minimised[0] if len(minimised) == 1 else minimised[0] + minimised[1])
        for name, value in losses.metrics.items():
            counted[name] = value * (part.num_tokens / batch.num_tokens)
        for name, value in counted.items():
            found.setdefault(name, []).append(value.detach())
    totals = world.sum({name: torch.stack(values).sum() for name, values in found.items()})
    if not is_sharded(model):
        world.sum_gradients(model.parameters())
    norm = gradient_norm(model)
    taken = all_ranks_finite(
        *(totals[name] for name in (_LOSS, _AUX_LOSS) if name in totals), norm, world=world
    )
    if taken:
        clip_gradients(model, norm, recipe.optim.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    loss = totals.pop(_LOSS)
    return StepResult(float(loss), float(norm), taken, totals)


def _autocast(model: PreTrainedModel, dtype: str) -> torch.autocast:
    device = next(model.parameters()).device
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")


def evaluate_heldout(session: Session) -> None:
    """Log the loss on the held-out batches, unless there are none or this step's loss is logged already."""
    model, recipe, run = session.model, session.recipe, session.run
    if session.heldout is None or run.evaluated_step == session.state.step:
        return
    world = session.world
    model.train(False)
    nats, tokens = torch.zeros((), dtype=torch.float64), 0.0
    with torch.no_grad(), world.watched():
        for _, batch in zip(range(recipe.run.eval_batches), session.heldout(), strict=False):
            rows = recipe.data.micro_batch_size or recipe.data.batch_size
            for part in parts_of_rank(batch, rows, recipe.data.length, world.data_rank, world.data_ranks):
                with _autocast(model, recipe.run.dtype):
                    nats += float(NEXT_TOKEN.losses(model, part).summed)
            tokens += batch.total_weight
    model.train()
    nats = world.sum({_LOSS: nats})[_LOSS]
    if not tokens:
        raise InputError("The held-out batches hold no labels; raise data.heldout_fraction or set it to 0.")
    run.log({"step": session.state.step, "eval_loss": float(nats) / tokens, "eval_tokens": round(tokens)})


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


def _judge_skip(session: Session, result: StepResult) -> None:
    """Raise LonglodeError if the recipe does not allow this step to be skipped."""
    state, optim, saved = session.state, session.recipe.optim, session.run.saved_step
    if optim.on_nonfinite == "skip" and state.skips <= optim.max_skips:
        return
    if optim.on_nonfinite == "skip":
        why = f"{state.skips} steps were left out, expected at most optim.max_skips = {optim.max_skips}"
        what = "Lower optim.lr, or raise optim.max_skips"
    else:
        why = "they must be finite"
        what = 'Lower optim.lr or optim.clip_norm, look at that batch, or set optim.on_nonfinite = "skip"'
    newest = (
        f"the newest checkpoint is of step {saved}" if saved is not None else "there is no checkpoint yet"
    )
    beside = f", auxiliary loss {float(result.metrics['aux_loss'])}" if "aux_loss" in result.metrics else ""
    raise LonglodeError(
        f"Step {state.step} (batch {state.step - 1} of the data, seed {session.recipe.run.seed}) gave "
        f"loss {result.loss}{beside} and gradient norm {result.grad_norm}: {why}. "
        f"The step was not taken, nothing of it was saved; {newest}. {what}."
    )


@contextlib.contextmanager
def _settings(run: RunSection) -> Iterator[None]:
    """Set threads and determinism as in the recipe, and restore them afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        if run.threads is not None:
            torch.set_num_threads(run.threads)
        torch.use_deterministic_algorithms(run.deterministic or deterministic)
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
