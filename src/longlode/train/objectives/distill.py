"""The objective `distill`: a student learns from a teacher, layer by layer or from its predictions."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from longlode.core.batch import Batch
from longlode.core.errors import ConfigError
from longlode.mixers.norm import at_least_float32
from longlode.models.load import load_model
from longlode.train.objectives.base import Losses, Objective
from longlode.train.objectives.inputs import Asked, asked_logits, blocks_of, device_of
from longlode.train.objectives.next_token import with_sides
from longlode.train.sequence import sharing_of

_TEACHERS: dict[tuple[str, str], Any] = {}
"""Teachers by name and device: one copy serves all stages and parts of a run."""


@dataclass(frozen=True, kw_only=True)
class Distill(Objective):
    """A teacher's layers, or its predictions, as the target. Take one after the other as two stages of a recipe.

    match = "layers": every block of the student gets what the teacher's block gets and is to give what that gives; mean
    squared error over the teacher's mean square, mean over the blocks. No gradient passes from block to block. Both
    need as many blocks, of the same width; embeddings and head are not trained.
    match = "logits": temperature^2 KL(teacher || student) per label, plus `label_weight` times the next-token loss
    (Hinton et al., arXiv 1503.02531). All logits of a part are held, of both models. Both need one tokenizer.

    teacher: starter, a run, a folder or a hub id. temperature: divides both models' logits. label_weight: of the
    next-token loss beside the teacher's.
    """

    name: ClassVar[str] = "distill"
    teacher: str
    match: Literal["layers", "logits"] = "logits"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    label_weight: Annotated[float, Field(ge=0)] = 0.0

    def weight(self, batch: Batch) -> float:
        """Return the number of labels, weighed as the packer says."""
        return batch.total_weight

    def losses(self, model: PreTrainedModel, batch: Batch) -> Losses:
        """Return the losses against the teacher. Raises: as `load_model`; ConfigError if the two do not fit."""
        teacher = _teacher(self.teacher, device_of(model))
        return (
            self._layers(model, teacher, batch)
            if self.match == "layers"
            else self._logits(model, teacher, batch)
        )

    def _layers(self, model: PreTrainedModel, teacher: PreTrainedModel, batch: Batch) -> Losses:
        own, theirs = blocks_of(model), blocks_of(teacher)
        if len(own) != len(theirs):
            raise ConfigError(
                f'The teacher {self.teacher!r} has {len(theirs)} blocks and the student {len(own)}; match = "layers" '
                "needs as many. Build the student with the teacher's number of layers."
            )
        widths = [one.get_input_embeddings().embedding_dim for one in (teacher, model)]
        if widths[0] != widths[1]:
            raise ConfigError(
                f"The teacher {self.teacher!r} is {widths[0]} wide and the student {widths[1]}; expected one width."
            )
        asked = Asked.of(model, batch)
        theirs_asked = Asked.of(teacher, batch, sharing_of(model))
        with torch.no_grad(), _recorded(theirs) as taught:
            teacher(**theirs_asked.inputs, use_cache=False, logits_to_keep=1)
        with _recorded(own, inputs=[given for given, _ in taught]) as learned:
            output = model(**asked.inputs, use_cache=False, logits_to_keep=1)
        errors, count = [], asked.total(torch.tensor(float(len(asked.labels)), device=asked.places.device))
        for (_, target), (_, found) in zip(taught, learned, strict=True):
            right, guess = (
                at_least_float32(stream.flatten(0, 1)[asked.places]) for stream in (target, found)
            )
            mean_square = asked.total(right.square().sum()) / (count * right.shape[-1]).clamp(min=1)
            errors.append((guess - right).square().mean(-1) / mean_square.clamp(min=1e-12))
        error = torch.stack(errors)
        means = (asked.total(error.sum(1)) / count.clamp(min=1)).unbind()
        metrics = {f"layer_{number}.error": one for number, one in enumerate(means)}
        whole = with_sides((error.mean(0) * asked.weights).sum(), batch, output)
        return Losses(whole.summed, {**whole.metrics, **metrics}, whole.auxiliary)

    def _logits(self, model: PreTrainedModel, teacher: PreTrainedModel, batch: Batch) -> Losses:
        asked = Asked.of(model, batch)
        with torch.no_grad():
            target, _ = asked_logits(teacher, Asked.of(teacher, batch, sharing_of(model)))
        logits, output = asked_logits(model, asked)
        if logits.shape != target.shape:
            raise ConfigError(
                f"The teacher {self.teacher!r} predicts {target.shape[-1]} tokens and the student {logits.shape[-1]}; "
                "expected one vocabulary."
            )
        heat = self.temperature
        divergence = functional.kl_div(
            (logits / heat).log_softmax(-1),
            (target / heat).log_softmax(-1),
            reduction="none",
            log_target=True,
        ).sum(-1)
        nats = functional.cross_entropy(logits, asked.labels, reduction="none")
        loss = ((heat**2 * divergence + self.label_weight * nats) * asked.weights).sum()
        found = with_sides(loss, batch, output)
        sums = torch.stack(
            (nats.detach().sum(), divergence.detach().sum(), nats.new_tensor(float(len(nats))))
        )
        nats_sum, divergence_sum, count = asked.total(sums).unbind()
        count = count.clamp(min=1)
        metrics = {"next_token": nats_sum / count, "divergence": divergence_sum / count}
        return Losses(found.summed, {**found.metrics, **metrics}, found.auxiliary)


def _teacher(name: str, device: torch.device) -> Any:
    """Load a teacher once, frozen, in evaluation mode and its own dtype."""
    key = (name, str(device))
    if key not in _TEACHERS:
        _TEACHERS[key] = load_model(name).to(device).requires_grad_(False)
    return _TEACHERS[key]


@contextlib.contextmanager
def _recorded(
    blocks: nn.ModuleList, inputs: list[Tensor] | None = None
) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect the residual stream before and after each block of a pass; with `inputs`, replace that before it."""
    found: list[tuple[Tensor, Tensor]] = []
    before: dict[int, Tensor] = {}

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], number: int) -> Any:
        named = not args
        stream = kwargs["hidden_states"] if named else args[0]
        before[number] = stream = stream if inputs is None else inputs[number].to(stream.dtype)
        return ((), kwargs | {"hidden_states": stream}) if named else ((stream, *args[1:]), kwargs)

    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any, number: int) -> None:
        found.append((before[number], output[0] if isinstance(output, tuple) else output))

    handles = []
    for number, block in enumerate(blocks):
        handles.append(
            block.register_forward_pre_hook(
                lambda module, args, kwargs, number=number: enter(module, args, kwargs, number),
                with_kwargs=True,
            )
        )
        handles.append(
            block.register_forward_hook(
                lambda module, args, kwargs, output, number=number: leave(
                    module, args, kwargs, output, number
                ),
                with_kwargs=True,
            )
        )
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
