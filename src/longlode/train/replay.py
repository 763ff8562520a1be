"""A step of a run, run again: from the newest checkpoint before it, with nothing written."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from longlode.core.batch import Batch
from longlode.core.errors import InputError
from longlode.core.records import read_jsonl
from longlode.train.checkpoint import (
    RunState,
    check_identity,
    checkpoint_folders,
    find_problem,
    load_checkpoint,
)
from longlode.train.enter_stage import Entrance
from longlode.train.loop import Session, make_objectives, settings_of, take_step
from longlode.train.optim import build_optimizer
from longlode.train.recipe import Recipe
from longlode.train.run_folder import RunFolder
from longlode.train.stages import stage_at
from longlode.train.step import StepResult

_NUM_LARGEST = 8


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Result of a step that was run again.

    step: counted from 1. from_step: of the checkpoint that it began with, 0 for the first weights. loss, grad_norm,
    taken, why: as they were now. logged_loss: in metrics.jsonl, None if it is not there; is_same: if both are equal bit
    for bit. largest: the parameters with the largest gradients, (name, L2 norm). not_finite: names of parameters whose
    gradients are not finite. documents: of the batch, as `describe` names them.
    """

    step: int
    from_step: int
    loss: float
    grad_norm: float
    taken: bool
    why: str
    logged_loss: float | None
    is_same: bool | None
    largest: list[tuple[str, float]]
    not_finite: list[str]
    documents: list[dict[str, Any]]


def replay(
    model: PreTrainedModel,
    batches: Callable[[int], Iterator[Batch]],
    recipe: Recipe,
    run_dir: str | Path,
    step: int,
    *,
    data_fingerprint: str,
    describe: Callable[[int], list[dict[str, Any]]] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Replay:
    """Run a step of a run again, with the steps between it and the newest checkpoint before it.

    Args: model, batches, recipe, data_fingerprint, describe: as of `train`. step: counted from 1, as in metrics.jsonl.
      on_step: called with the number of every step that is done.
    Raises: InputError for a step that the run does not have, and for a run whose schedule follows the clock;
      CheckpointError as in `check_identity`.
    """
    if recipe.optim.schedule_by == "time":
        raise InputError(
            "A run whose schedule follows the clock cannot be repeated; replay needs schedule_by = steps."
        )
    if not 1 <= step <= (recipe.num_steps or step):
        raise InputError(f"The run has no step {step}; expected 1 to {recipe.num_steps}.")
    run = RunFolder(Path(run_dir), recipe, data_fingerprint)
    torch.manual_seed(recipe.run.seed)
    optimizer = build_optimizer(model, recipe.optim)
    state = _newest_before(run, step, model, optimizer)
    from_step = state.step
    session = Session(model, make_objectives(recipe), optimizer, recipe, run, state, None, None)
    result, gradients = _take_steps(session, batches, step, on_step)
    logged = _logged_loss(run.metrics, step)
    finite = {name: norm for name, norm in gradients.items() if math.isfinite(norm)}
    return Replay(
        step=step,
        from_step=from_step,
        loss=result.loss,
        grad_norm=result.grad_norm,
        taken=result.taken,
        why=result.why,
        logged_loss=logged,
        is_same=None if logged is None else _equal(logged, result.loss),
        largest=sorted(finite.items(), key=lambda named: -named[1])[:_NUM_LARGEST],
        not_finite=[name for name in gradients if name not in finite],
        documents=[] if describe is None else describe(step - 1),
    )


def _take_steps(
    session: Session,
    batches: Callable[[int], Iterator[Batch]],
    step: int,
    on_step: Callable[[int], None] | None,
) -> tuple[StepResult, dict[str, float]]:
    """Take the steps up to `step`; return its result, and the L2 norm of the gradient of each parameter."""
    recipe, state = session.recipe, session.state
    entrance = Entrance(session.model, session.optimizer, recipe.stage_list)
    gradients: dict[str, float] = {}

    def note(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                gradients[name] = float(parameter.grad.norm())

    stage = None
    with settings_of(recipe.run):
        for batch in itertools.islice(batches(state.step), step - state.step):
            if (now := stage_at(recipe.stage_list, state.step)) is not stage:
                stage = now
                entrance.enter(stage, state)
            taken = take_step(session, stage, batch, note if state.step == step - 1 else None)
            if on_step is not None:
                on_step(state.step)
    if state.step < step:
        raise InputError(f"The data ends before step {step}, after {state.step}.")
    return taken.result, gradients


def _equal(one: float, other: float) -> bool:
    """Return True for equal numbers, and for two that are not numbers."""
    return one == other or (math.isnan(one) and math.isnan(other))


def _newest_before(
    run: RunFolder, step: int, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> RunState:
    """Load the newest checkpoint of fewer than `step` steps that verifies; the model's own weights if there is none."""
    for path in checkpoint_folders(run.checkpoints):
        if int(path.name.removeprefix("step-")) < step and find_problem(path) is None:
            check_identity(path, run.recipe, run.data_fingerprint)
            return load_checkpoint(path, model, optimizer)
    return RunState()


def _logged_loss(metrics: Path, step: int) -> float | None:
    with contextlib.suppress(InputError):
        for row in read_jsonl(metrics):
            if row["step"] == step and "eval_loss" not in row:
                loss = row.get("loss")
                return float("nan") if loss is None else float(loss)
    return None
