"""What an objective is: a batch in, a sum of losses and what it is divided by out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor
from transformers import PreTrainedModel

from longlode.core.batch import Batch
from longlode.core.options import build
from longlode.core.plugins import Registry


@dataclass(frozen=True)
class Losses:
    """What a part of a step's batch gives.

    summed: the loss, not yet divided, a scalar; what is logged as `loss`.
    metrics: numbers worth logging, by name, means over the labels of the part.
    auxiliary: what is minimised beside `summed` (load balance of a router), a scalar, not yet divided either; None:
      nothing. It is logged apart, as `aux_loss`.
    """

    summed: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    auxiliary: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """A loss over batches. The fields of a subclass, a frozen dataclass too, are its options: typed, with defaults.

    The loss of a step is the sum of `losses(part).summed` over the parts of its batch, divided by `weight(batch)`, so
    that it does not depend on how the batch was cut for memory; its auxiliary loss likewise. The gradient is that of
    both together.
    """

    name: ClassVar[str]

    @abstractmethod
    def weight(self, batch: Batch) -> float:
        """What the summed loss of the whole batch is divided by; above 0 for a batch with labels."""

    @abstractmethod
    def losses(self, model: PreTrainedModel, batch: Batch) -> Losses:
        """The summed loss of a batch or a part of one; the model is a causal language model on its device."""


OBJECTIVES: Registry[Objective] = Registry(
    "objective",
    Objective,  # type: ignore[type-abstract]
    package="longlode.train.objectives",
    group="longlode.objectives",
)
"""Objectives by name; `core.plugins` says how others come in."""


def make_objective(name: str, options: Mapping[str, Any] | None = None) -> Objective:
    """The objective called `name` with these options.

    Raises: ConfigError for a name that nobody has, an option that the objective does not have, or a value that it does
      not take.
    """
    return build(OBJECTIVES.get(name), options, f"the objective {name!r}")
