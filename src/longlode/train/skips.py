"""Steps that are left out: losses that are not finite, and spikes far above those of the steps before."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from longlode.core.errors import LonglodeError
from longlode.train.sections import OptimSection

if TYPE_CHECKING:
    from longlode.train.checkpoint import RunState
    from longlode.train.step import StepResult

NOT_FINITE = "not finite"
SPIKE = "spike"
_WINDOW = 128
"""Steps before a step that its loss and gradient norm are compared with."""
_LEAST = 32
"""Steps that must have been taken in the stage before any is called a spike."""


@dataclass(frozen=True)
class Limits:
    """The largest loss and gradient norm of a step that is taken."""

    loss: float = math.inf
    grad_norm: float = math.inf

    def exceeded(self, loss: float, grad_norm: float) -> bool:
        """Return True for a step that is a spike."""
        return loss > self.loss or grad_norm > self.grad_norm


NO_LIMITS = Limits()


def spike_limits(optim: OptimSection, recent: Sequence[tuple[float, float]]) -> Limits:
    """Return the limits after `recent` steps, each (loss, gradient norm): mean + spike_sigma standard deviations.

    Source of the rule: OLMo-core's step-skipping optimizer. The standard deviation of the losses counts as at least a
    hundredth of their mean, so that a very even run does not call every wave a spike.
    """
    if optim.spike_sigma is None or len(recent) < _LEAST:
        return NO_LIMITS
    values = np.asarray(recent, dtype=np.float64)
    mean = values.mean(0)
    spread = np.maximum(values.std(0), 0.01 * np.abs(mean))
    loss, norm = (mean + optim.spike_sigma * spread).tolist()
    return Limits(loss, norm)


def remember(recent: list[tuple[float, float]], result: "StepResult") -> None:
    """Add a step to those that later ones are compared with, if it was taken."""
    if result.taken:
        recent.append((result.loss, result.grad_norm))
        del recent[:-_WINDOW]


def judge_skip(
    state: "RunState", optim: OptimSection, result: "StepResult", seed: int, saved: int | None, limits: Limits
) -> None:
    """Raise LonglodeError if the recipe does not allow the step that was just counted to be left out.

    Args: saved: step of the newest checkpoint, for the message.
    """
    allowed = result.why == SPIKE or optim.on_nonfinite == "skip"
    if allowed and state.skips <= optim.max_skips:
        return
    if allowed:
        why = f"{state.skips} steps were left out, expected at most optim.max_skips = {optim.max_skips}"
        what = "Lower optim.lr, or raise optim.max_skips"
    else:
        why = "they must be finite"
        what = 'Lower optim.lr or optim.clip_norm, look at that batch, or set optim.on_nonfinite = "skip"'
    if result.why == SPIKE:
        why = f"a spike above {limits.loss:.4g} and {limits.grad_norm:.4g}; {why}"
    newest = (
        f"the newest checkpoint is of step {saved}" if saved is not None else "there is no checkpoint yet"
    )
    beside = f", auxiliary loss {float(result.metrics['aux_loss'])}" if "aux_loss" in result.metrics else ""
    raise LonglodeError(
        f"Step {state.step} (batch {state.step - 1} of the data, seed {seed}) gave "
        f"loss {result.loss}{beside} and gradient norm {result.grad_norm}: {why}. "
        f"The step was not taken, nothing of it was saved; {newest}. {what}. "
        f"longlode train --replay {state.step} runs it again and says where the numbers come from."
    )
