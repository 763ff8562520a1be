"""Recipes of runs: the keys of a TOML file, checked, each with a description and its unit.

    [model]  the network                [data]  input of a step
    [optim]  optimizer and schedule     [run]   length, checkpoints, logging
    [parallel]  optional: sequences on several ranks
    [[stages]]  optional: parts of the run, one after the other, that differ from [data] and [optim]

Unknown keys are refused. The keys themselves are in `sections.py` and `stages.py`.
"""

import difflib
import math
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from longlode.core.errors import ConfigError, InputError
from longlode.core.fingerprints import fingerprint
from longlode.core.near_names import near_path
from longlode.core.options import parse_value
from longlode.train.sections import (
    FREE,
    DataSection,
    ModelSection,
    OptimSection,
    ParallelSection,
    RunSection,
    Section,
)
from longlode.train.stages import Stage, StageSection, stages_of

__all__ = [
    "DataSection",
    "ModelSection",
    "OptimSection",
    "ParallelSection",
    "Recipe",
    "RunSection",
    "fixed_part",
    "recipe_changes",
]

_STAGES = "stages"


class Recipe(Section):
    """A whole run. Build it with `Recipe.load` from a TOML file, or directly from sections."""

    model: ModelSection | None = None
    data: DataSection
    optim: OptimSection = Field(default_factory=lambda: OptimSection.model_validate({}))
    run: RunSection
    parallel: ParallelSection = Field(default_factory=lambda: ParallelSection.model_validate({}))
    stages: list[StageSection] = Field(default_factory=list)
    _stages: tuple[Stage, ...] = PrivateAttr()

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if self.run.steps is not None and self.run.tokens is not None:
            raise ValueError("run.steps and run.tokens are both set; expected one of them")
        if self.optim.schedule_by == "time" and self.run.max_seconds is None:
            raise ValueError('optim.schedule_by = "time" needs run.max_seconds, which is not set')
        if self.stages:
            if self.run.steps is not None or self.run.tokens is not None or self.optim.schedule_by == "time":
                raise ValueError(
                    "the stages say how long the run is; leave out run.steps and run.tokens, and optim.schedule_by = "
                    '"time"'
                )
        elif self.run.steps is None and self.run.tokens is None and self.optim.schedule_by == "steps":
            raise ValueError(
                "the length of the run is not set; set run.steps, run.tokens, [[stages]], or run.max_seconds with "
                'optim.schedule_by = "time"'
            )
        return self

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if (self.model is None) == (self.run.start is None):
            raise ValueError(
                "[model] describes a new model and run.start names one to start from; set one of them"
            )
        return self

    @model_validator(mode="after")
    def _fill_in_stages(self) -> Self:
        # A private attribute, which a frozen model lets its own validators set.
        self._stages = stages_of(self)
        return self

    @property
    def stage_list(self) -> tuple[Stage, ...]:
        """The stages with all values filled in: one for a recipe without stages."""
        return self._stages

    @classmethod
    def load(cls, path: str | Path, overrides: list[str] | None = None) -> "Recipe":
        """Read a recipe from a TOML file, then apply `overrides` ("optim.lr=1e-3"), and check the whole.

        Raises: InputError if the file cannot be read; ConfigError if it, or an override, is invalid.
        """
        path = Path(path)
        if path.is_dir():
            inside = "".join(f", for example {one}" for one in sorted(path.glob("*.toml"))[:1])
            raise InputError(f"Recipe {path} is a folder; expected a TOML file{inside}.")
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"Recipe {path} cannot be read: {error}.{near_path(path)}") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"Recipe {path} is not valid TOML: {error}.") from None
        return cls.parse(values, overrides, where=f"Recipe {path}")

    @classmethod
    def parse(
        cls, values: dict[str, Any], overrides: list[str] | None = None, where: str = "Recipe"
    ) -> "Recipe":
        """Check a tree of plain values with `overrides` applied. Raises: ConfigError that names each bad key."""
        tree = {name: dict(keys) if isinstance(keys, dict) else keys for name, keys in values.items()}
        if isinstance(stages := tree.get(_STAGES), list):
            tree[_STAGES] = [dict(keys) if isinstance(keys, dict) else keys for keys in stages]
        for override in overrides or []:
            section, number, key, value = _parse_override(override)
            keys = tree.setdefault(section, {}) if number is None else _stage(tree, number, override)
            if isinstance(keys, dict):
                keys[key] = value
        stages = tree.get(_STAGES)
        for keys in (*tree.values(), *(stages if isinstance(stages, list) else ())):
            if isinstance(keys, dict):  # TOML has no null, so "none" stands for it
                keys.update({key: None for key, value in keys.items() if value == "none"})
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            lines = [_explain(problem) for problem in error.errors()]
            raise ConfigError(f"{where} cannot be used:\n  " + "\n  ".join(lines)) from None

    @property
    def num_steps(self) -> int | None:
        """Number of steps of the run; None for a run limited only by time."""
        last = self._stages[-1]
        return None if last.num_steps is None else last.first_step + last.num_steps

    @property
    def steps_without_stages(self) -> int | None:
        """Number of steps by [run] alone."""
        if self.run.tokens is not None:
            return math.ceil(self.run.tokens / (self.data.batch_size * self.data.length))
        return self.run.steps

    def resolved(self) -> dict[str, Any]:
        """Return the whole tree as plain JSON values, defaults included."""
        tree = self.model_dump(mode="json")
        # Parts added later: recipes without them keep their fingerprint.
        return {
            name: keys for name, keys in tree.items() if keys or name not in ("model", "parallel", _STAGES)
        }

    def fingerprint(self) -> str:
        """Hash of the run's fixed part: recipes that may resume each other have the same one."""
        return fingerprint(fixed_part(self.resolved()))


def fixed_part(resolved: dict[str, Any]) -> dict[str, Any]:
    """Return the flat "section.key" -> value map of a resolved recipe, without the keys that may change on resume."""
    fields, found = all_fields(), {}
    for section, keys in resolved.items():
        tables = [(f"{section}.", keys)]
        if section == _STAGES:
            tables = [(f"{section}.{number}.", stage) for number, stage in enumerate(keys, 1)]
        for prefix, table in tables:
            for key, value in table.items():
                field = fields.get(f"{section}.{key}")
                if field is None or field.json_schema_extra != FREE:
                    found[prefix + key] = value
    return found


def recipe_changes(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return one line for each fixed key that differs between two resolved recipes."""
    old, new = fixed_part(saved), fixed_part(now)
    absent = object()
    return [
        f"{name}: {old.get(name, 'not set')!r} -> {new.get(name, 'not set')!r}"
        for name in sorted(old | new)
        if old.get(name, absent) != new.get(name, absent)
    ]


def _sections() -> dict[str, type[BaseModel]]:
    return {
        "model": ModelSection,
        "data": DataSection,
        "optim": OptimSection,
        "run": RunSection,
        "parallel": ParallelSection,
        _STAGES: StageSection,
    }


def all_fields() -> dict[str, Any]:
    """Return every field of a recipe by its full name."""
    return {
        f"{name}.{key}": field
        for name, section in _sections().items()
        for key, field in section.model_fields.items()
    }


def _parse_override(text: str) -> tuple[str, int | None, str, Any]:
    """Split "optim.lr=1e-3" into ("optim", None, "lr", 0.001), and "stages.2.lr=1e-3" into ("stages", 2, "lr", 0.001).

    Values are TOML; other text is a string.
    """
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    section, dot, key = name.partition(".")
    number = None
    if section == _STAGES and (parts := key.split(".", 1))[0].isdecimal() and len(parts) == 2:
        number, key = int(parts[0]), parts[1]
    if not (equals and dot and key) or (section == _STAGES and number is None):
        raise ConfigError(
            f"--set got {text!r}; expected SECTION.KEY=VALUE, for example optim.lr=1e-3, or stages.2.lr=1e-3."
        )
    if section not in _sections():
        raise ConfigError(f"--set got {text!r}: {_unknown(section, list(_sections()), 'section')}")
    if f"{section}.{key}" not in all_fields():
        raise ConfigError(f"--set got {text!r}: {_unknown_key(section, key)}")
    return section, number, key, parse_value(value)


def _stage(tree: dict[str, Any], number: int, override: str) -> Any:
    """Return the keys of a stage of a tree of plain values, by its number from 1."""
    stages = tree.get(_STAGES)
    count = len(stages) if isinstance(stages, list) else 0
    if not 1 <= number <= count:
        raise ConfigError(f"--set got {override!r}; the recipe has {count} stages, counted from 1.")
    return tree[_STAGES][number - 1]


def _explain(problem: Any) -> str:
    """Format one of pydantic's errors in one line: the key, the value given, the values accepted."""
    # A stage is counted from 1, as everywhere; a union's branches add parts to the place of an error.
    location = [str(part + 1) if isinstance(part, int) else str(part) for part in problem["loc"]]
    name = ".".join(location) or "the recipe"
    if problem["type"] == "extra_forbidden" and len(location) == 1:
        return _unknown(location[0], list(_sections()), "section")
    if problem["type"] == "extra_forbidden":
        return _unknown_key(location[0], location[-1])
    if problem["type"] == "missing":
        field = all_fields().get(name)
        return f"{name} is missing." + (f" {field.description}" if field else "")
    if problem["type"] == "value_error":
        return f"{problem['ctx']['error']}."
    return f"{name} is {problem['input']!r}: {problem['msg']}."


def _unknown_key(section: str, key: str) -> str:
    return _unknown(key, list(_sections()[section].model_fields), f"key of [{section}]")


def _unknown(name: str, allowed: list[str], what: str) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{name!r} is no {what}.{hint} Allowed: {', '.join(allowed)}."
