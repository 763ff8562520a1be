"""Stages of a run: parts one after the other, each with its own rows, learning rate, RoPE base and frozen parameters.

A recipe lists what differs from [data] and [optim] in each; `Stage` is that with all values filled in. A recipe without
stages is a run of one. Which stage a step belongs to, and its step within it, follow from the recipe alone.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    create_model,
    model_serializer,
    model_validator,
)

from longlode.train.sections import DataSection, OptimSection, Section

if TYPE_CHECKING:
    from longlode.train.recipe import Recipe

_OF_DATA = (
    *("shards", "length", "batch_size", "micro_batch_size", "packer", "packer_options"),
    *("packed", "mix", "mix_epochs"),
)
_OF_OPTIM = (
    *("lr", "min_lr_ratio", "warmup_steps", "schedule", "decay_fraction", "weight_decay"),
    *("objective", "objective_options", "clip_norm", "spike_sigma"),
)


class _StageKeys(Section):
    @model_serializer(mode="wrap")
    def _leave_out_unset_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Dump only the keys that were given: others are those of [data] and [optim]."""
        return {name: value for name, value in dump(self).items() if name in self.model_fields_set}

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        given = [getattr(self, name) for name in ("steps", "tokens")]
        if sum(value is not None for value in given) != 1:
            raise ValueError("a stage has a length; set one of its steps and tokens")
        return self


def _overriding(section: type[Section], names: tuple[str, ...]) -> dict[str, Any]:
    """Return fields of a section as fields of a stage, unset by default."""
    found = {}
    for name in names:
        field = section.model_fields[name]
        kind: Any = field.annotation
        for limit in field.metadata:
            kind = Annotated[kind, limit]
        title = "data" if section is DataSection else "optim"
        description = f"{field.description} Unset: {title}.{name}."
        found[name] = (
            kind | None,
            Field(None, description=description, json_schema_extra=field.json_schema_extra),
        )
    return found


if TYPE_CHECKING:
    StageSection = _StageKeys
else:
    StageSection = create_model(
        "StageSection",
        __base__=_StageKeys,
        __doc__="A stage: its length, and what differs from [data] and [optim].",
        name=(str, Field("", description="Name of the stage, in metrics and messages; unset: its number.")),
        steps=(int | None, Field(None, gt=0, description="Length of the stage (steps).")),
        tokens=(
            int | None,
            Field(None, gt=0, description="Length of the stage (tokens), rounded up to steps."),
        ),
        rope_theta=(
            float | None,
            Field(
                None,
                gt=0,
                description="Base of the rotary positions from this stage on (ABF); unset: as it was.",
            ),
        ),
        freeze=(
            list[str],
            Field(
                default_factory=list,
                description='Parameters that stay as they are, by name with * and ?, e.g. ["*.mlp.*"].',
            ),
        ),
        fresh_moments=(bool, Field(False, description="Begin the stage with AdamW's moments at 0.")),
        **_overriding(DataSection, _OF_DATA),
        **_overriding(OptimSection, _OF_OPTIM),
    )


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage with all values filled in.

    name: unique in the run; "" for the only stage of a recipe without stages. number: from 0. first_step: of the run.
    num_steps: None for a run limited by time. data, optim: its sections. rope_theta: base of the rotary positions from
    its first step on, None for the model's own. freeze: patterns of frozen parameters. fresh_moments: as in the recipe.
    """

    name: str
    number: int
    first_step: int
    num_steps: int | None
    data: DataSection
    optim: OptimSection
    rope_theta: float | None = None
    freeze: tuple[str, ...] = ()
    fresh_moments: bool = False

    def progress(self, step: int) -> float:
        """Return the part of the stage that is done before a step of the run; 0 at its first step, 1 at its last."""
        return (step - self.first_step) / max(1, (self.num_steps or 1) - 1)

    def seed(self, seed: int) -> int:
        """Return the seed of the order of its data: other stages of the same rows do not begin with the same ones."""
        return (seed + 0x9E3779B97F4A7C15 * self.number) % 2**63


def stages_of(recipe: "Recipe") -> tuple[Stage, ...]:
    """Fill in the stages of a recipe; a recipe without any is one stage.

    Raises: ValueError for two stages of one name, and for values that do not fit together.
    """
    if not recipe.stages:
        only = Stage(
            name="",
            number=0,
            first_step=0,
            num_steps=recipe.steps_without_stages,
            data=recipe.data,
            optim=recipe.optim,
        )
        return (only,)
    found: list[Stage] = []
    first, theta = 0, None
    for number, section in enumerate(recipe.stages):
        given = section.model_dump(mode="python")
        name = given.get("name") or str(number + 1)
        data = _with(recipe.data, given, _OF_DATA, name)
        optim = _with(recipe.optim, given, _OF_OPTIM, name)
        steps = given.get("steps") or math.ceil(given["tokens"] / (data.batch_size * data.length))
        theta = given.get("rope_theta") or theta
        found.append(
            Stage(
                name=name,
                number=number,
                first_step=first,
                num_steps=steps,
                data=data,
                optim=optim,
                rope_theta=theta,
                freeze=tuple(given.get("freeze", ())),
                fresh_moments=given.get("fresh_moments", False),
            )
        )
        first += steps
    names = [stage.name for stage in found]
    if len(set(names)) < len(names):
        raise ValueError(f"stages are named {', '.join(names)}; expected names that differ")
    return tuple(found)


def stage_at(stages: tuple[Stage, ...], step: int) -> Stage:
    """Return the stage of a step of the run, from 0; the last stage for steps beyond the end."""
    return [stage for stage in stages if stage.first_step <= step][-1]


def from_step(stages: tuple[Stage, ...], step: int) -> Iterator[tuple[Stage, int, int | None]]:
    """Yield the stages from a step of the run on, each with its first step to take and the number from there."""
    for stage in stages:
        begin = max(0, step - stage.first_step)
        if stage.num_steps is None:
            yield stage, begin, None
        elif begin < stage.num_steps:
            yield stage, begin, stage.num_steps - begin


def _with(section: Any, given: dict[str, Any], names: tuple[str, ...], stage: str) -> Any:
    """Return a section with the values of a stage in place of its own, checked as a whole."""
    own = {name: getattr(section, name) for name in type(section).model_fields}
    changed = {name: given[name] for name in names if name in given}
    if "batch_size" in changed and "micro_batch_size" not in changed and own["micro_batch_size"] is not None:
        changed["micro_batch_size"] = min(own["micro_batch_size"], changed["batch_size"])
    try:
        return type(section).model_validate(own | changed)
    except ValidationError as error:
        problems = [str(problem.get("ctx", {}).get("error", problem["msg"])) for problem in error.errors()]
        raise ValueError(f"stage {stage}: {'; '.join(problems)}") from None
