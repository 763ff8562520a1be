"""Changes at the beginning of a stage: RoPE base, frozen parameters, settings of the optimizer."""

import logging
from fnmatch import fnmatchcase

import torch
from transformers import PreTrainedModel

from longlode.core.errors import ConfigError
from longlode.train.checkpoint import RunState
from longlode.train.rope import set_rope_theta
from longlode.train.stages import Stage

logger = logging.getLogger(__name__)


class Entrance:
    """Brings a model and its optimizer into a stage. Make it before the first stage, when no stage has frozen any."""

    def __init__(
        self, model: PreTrainedModel, optimizer: torch.optim.Optimizer, stages: tuple[Stage, ...]
    ) -> None:
        """Note the parameters that can be trained, and check the patterns of all stages.

        Raises: ConfigError for a pattern of `freeze` that fits no parameter, and for patterns that leave none to train.
        """
        self._model = model
        self._optimizer = optimizer
        self._trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        for stage in stages:
            self._check_patterns(stage)

    def enter(self, stage: Stage, state: RunState) -> None:
        """Set the model and the optimizer to the stage that the next step of the run belongs to.

        All that is set is a function of the stage, but that at its first step moments may be cleared, and losses of
        other rows are forgotten as a measure of spikes; so a run that is resumed enters as one that was never stopped.
        """
        if stage.rope_theta is not None and not set_rope_theta(self._model, stage.rope_theta):
            logger.warning("Stage %s sets rope_theta; the model has no rotary positions.", stage.name)
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(name in self._trained and not _fits(name, stage.freeze))
        for group in self._optimizer.param_groups:
            group["weight_decay"] = stage.optim.weight_decay if group["decays"] else 0.0
        if state.step == stage.first_step:
            state.recent.clear()
            if stage.fresh_moments:
                self._optimizer.state.clear()

    def _check_patterns(self, stage: Stage) -> None:
        names = [name for name, _ in self._model.named_parameters()]
        for pattern in stage.freeze:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(
                    f"Stage {stage.name} freezes {pattern!r}, which fits no parameter; expected a name, with * and ?, "
                    f"such as {names[0]!r}."
                )
        if all(_fits(name, stage.freeze) for name in self._trained):
            raise ConfigError(f"Stage {stage.name} freezes every parameter; leave one to train.")


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
