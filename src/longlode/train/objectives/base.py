"""Interface of objectives: from a batch to a sum of losses and its divisor."""

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
    """Losses of a part of a step's batch.

    summed: sum of the losses, not yet divided, a scalar; logged (divided) as `loss`.
    metrics: numbers to log, by name, means over the labels of the part.
    auxiliary: a loss minimised together with `summed` (load balance of a router), a scalar, not yet divided either;
      None: none. It is logged separately, as `aux_loss`.
    """

    summed: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    auxiliary: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """A loss over batches. The fields of a subclass, a frozen dataclass, are its options: typed, with defaults.

    The loss of a step is the sum of `losses(part).summed` over the parts of its batch, divided by `weight(batch)`, so
    that it does not depend on how the batch was cut for memory; its auxiliary loss likewise. The gradient is that of
    the sum of both.
    """

    name: ClassVar[str]

    @abstractmethod
    def weight(self, batch: Batch) -> float:
        """Return the divisor of the summed loss of the whole batch; above 0 for a batch with labels."""

    @abstractmethod
    def losses(self, model: PreTrainedModel, batch: Batch) -> Losses:
        """Return the losses of a batch or a part of one; `model` is a causal language model on its device."""


OBJECTIVES: Registry[Objective] = Registry(
    "objective",
    Objective,  # type: ignore[type-abstract]
    package="longlode.train.objectives",
    group="longlode.objectives",
)
"""Objectives by name; see `core.plugins` for adding others."""


def make_objective(name: str, options: Mapping[str, Any] | None = None) -> Objective:
    """Make the objective called `name` with these options.

    Raises: ConfigError for an unknown name, an unknown option, or a value that the objective refuses.
    """
    return build(OBJECTIVES.get(name), options, f"the objective {name!r}")
