"""One step of training: forward, backward, sum over the ranks, checks, clip, update."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from longlode.core.batch import Batch
from longlode.train.division import UNDIVIDED, Division
from longlode.train.objectives import NextToken, Objective
from longlode.train.optim import all_ranks_finite, clip_gradients, gradient_norm
from longlode.train.recipe import Recipe
from longlode.train.sequence import shared_rows
from longlode.train.sharding import is_sharded, set_gradient_sync
from longlode.train.skips import NO_LIMITS, NOT_FINITE, SPIKE, Limits

_LOSS, _AUX_LOSS = "loss", "aux_loss"

NEXT_TOKEN = NextToken()
"""Objective of held-out losses, independent of the training objective."""


@dataclass(frozen=True)
class StepResult:
    """Result of a step."""

    loss: float
    """The objective over the whole batch, auxiliary losses not included; nats per label for next_token."""
    grad_norm: float
    """L2 norm of the gradient before clipping."""
    taken: bool
    """False if the step was left out: then weights and moments are as before."""
    why: str
    """"", or the reason why it was left out: NOT_FINITE or SPIKE."""
    metrics: dict[str, Tensor]
    """Further metrics of the model or the objective, means over the labels; `aux_loss` is added to the loss."""


def training_step(
    model: PreTrainedModel,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    lr: float,
    recipe: Recipe,
    objective: Objective = NEXT_TOKEN,
    division: Division = UNDIVIDED,
    *,
    limits: Limits = NO_LIMITS,
    on_gradients: Callable[[nn.Module], None] | None = None,
) -> StepResult:
    """Take one step on one batch; micro batches are weighted by the objective, so their number does not matter.

    batch: the whole batch, on every rank; each reads its shares by `division`. The sum over the ranks of losses and of
    gradients is that of one rank, since each is divided by the weight of the whole batch.
    limits: a loss or gradient norm above which the step is left out. on_gradients: called with the model while it has
    the gradients of the whole batch, before they are clipped.
    """
    model.train()
    optimizer.zero_grad(set_to_none=True)
    rows = recipe.data.micro_batch_size or recipe.data.batch_size
    weight = objective.weight(batch)
    world = division.world
    found: dict[str, list[Tensor]] = {}
    shares = division.shares(batch, rows, recipe.data.length)
    for number, share in enumerate(shares, 1):
        # Auxiliary losses and metrics are of whole rows, the same on all ranks that share them; losses are shares.
        part, sharing = share.batch, share.num_ranks
        set_gradient_sync(model, number == len(shares))
        with shared_rows(model, share.sharing), autocast(model, recipe.run.dtype):
            losses = objective.losses(model, part)
        counted = {_LOSS: losses.summed / weight}
        if losses.auxiliary is not None:
            counted[_AUX_LOSS] = losses.auxiliary / (weight * sharing)
        minimised = list(counted.values())
        torch.autograd.backward(minimised[0] if len(minimised) == 1 else minimised[0] + minimised[1])
        for name, value in losses.metrics.items():
            counted[name] = value * (part.num_tokens / (batch.num_tokens * sharing))
        for name, value in counted.items():
            found.setdefault(name, []).append(value.detach())
    totals = world.sum({name: torch.stack(values).sum() for name, values in found.items()})
    if not is_sharded(model):
        world.sum_gradients(model.parameters())
    norm = gradient_norm(model)
    if on_gradients is not None:
        on_gradients(model)
    finite = all_ranks_finite(
        *(totals[name] for name in (_LOSS, _AUX_LOSS) if name in totals), norm, world=world
    )
    loss = totals.pop(_LOSS)
    why = NOT_FINITE if not finite else SPIKE if limits.exceeded(float(loss), float(norm)) else ""
    if not why:
        clip_gradients(model, norm, recipe.optim.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(float(loss), float(norm), not why, why, totals)


def autocast(model: PreTrainedModel, dtype: str) -> torch.autocast:
    """Return the context of a forward pass by `run.dtype`."""
    device = next(model.parameters()).device
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")
