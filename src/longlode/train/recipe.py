"""Recipes of runs: the keys of a TOML file, checked, each with a description and its unit.

    [model]  the network                [data]  input of a step
    [optim]  optimizer and schedule     [run]   length, checkpoints, logging

Unknown keys are refused. Fields marked `_FREE` may change when a run resumes; all others belong to the run.
"""

import dataclasses
import difflib
import math
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    create_model,
    model_serializer,
    model_validator,
)

from longlode.core.errors import ConfigError, InputError
from longlode.core.fingerprints import fingerprint
from longlode.core.mixes import parse_mix
from longlode.core.options import parse_value
from longlode.models import LonglodeConfig

_FREE: dict[str, Any] = {"may_change_on_resume": True}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _GrowingSection(_Section):
    """A section with keys added later: their defaults are not saved, so that older recipes keep their fingerprint."""

    _later: ClassVar[frozenset[str]]

    @model_serializer(mode="wrap")
    def _leave_out_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            name: value
            for name, value in dump(self).items()
            if name not in self._later or value != fields[name].get_default(call_default_factory=True)
        }


class _ModelKeys(_GrowingSection):
    _later = frozenset({"layers", "num_v_heads", "expand_v", "attn_num_heads", "attn_head_dim", "qkv_bias"})

    @model_validator(mode="after")
    def _check_stack(self) -> Self:
        mixers, layers = getattr(self, "mixers"), getattr(self, "layers")  # noqa: B009 - they come below
        if (mixers is None) == (layers is None):
            raise ValueError("model.mixers and model.layers name the stack; set one of them")
        return self


def _model_key(field: dataclasses.Field[Any]) -> tuple[Any, Any]:
    """A field of `LonglodeConfig` as a key of the section: same type, default and description."""
    least = field.metadata["least"]
    bounds: dict[str, Any] = {}
    if {int, float} & {field.type, *get_args(field.type)}:
        bounds = {"gt": 0} if least is None else {"ge": least}
    default = ... if field.name in ("hidden_size", "num_heads") else field.default
    return field.type, Field(default, description=field.metadata["doc"], **bounds)


if TYPE_CHECKING:
    ModelSection = _ModelKeys
else:
    ModelSection = create_model(
        "ModelSection",
        __base__=_ModelKeys,
        __doc__="The network: the fields of `LonglodeConfig`, less the vocabulary, which comes from the tokenizer.",
        **{
            field.name: _model_key(field)
            for field in dataclasses.fields(LonglodeConfig)
            if "doc" in field.metadata
        },
    )


class DataSection(_GrowingSection):
    """Input of one step."""

    _later = frozenset({"packer", "packer_options", "mix", "mix_epochs"})

    shards: str | list[str] | None = Field(
        None,
        description="Folder(s) written by `longlode pack`; their content, not their path, is the run's.",
        json_schema_extra=_FREE,
    )
    length: int = Field(gt=1, description="Length of a sequence (tokens).")
    batch_size: int = Field(gt=0, description="Sequences a step.")
    micro_batch_size: int | None = Field(
        None,
        gt=0,
        description="Sequences in memory at once, gradients add up; unset: batch_size.",
        json_schema_extra=_FREE,
    )
    packer: str = Field(
        "concat",
        description="How documents become rows: concat, truncate, best_fit, decompose, masked; package.module:Class.",
    )
    packer_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the packer, e.g. {cycles = 4} for decompose."
    )
    mix: dict[str, float] | str | None = Field(
        None,
        description='Shares of tokens: "books=0.4,code=0.6" by source; "kind:novel", "score:0.5..", "rest". '
        "Unset: every document once an epoch.",
    )
    mix_epochs: float | None = Field(
        None,
        gt=0,
        description="Most times that a group of the mixture is read, then the others share its part; unset: no limit.",
    )
    packed: bool = Field(
        True,
        description="Documents in one row do not see each other; false: state flows from one to the next.",
    )
    heldout_fraction: float = Field(
        0.0, ge=0, lt=1, description="Part of the documents kept for eval_loss, out of training (0 to 1)."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.micro_batch_size is not None and self.micro_batch_size > self.batch_size:
            raise ValueError(
                f"micro_batch_size is {self.micro_batch_size}; expected at most batch_size, {self.batch_size}"
            )
        if self.mix is not None:
            try:
                parse_mix(self.mix)
            except ConfigError as error:
                raise ValueError(f"data.mix: {str(error).rstrip('.')}") from None
        elif self.mix_epochs is not None:
            raise ValueError("data.mix_epochs is set and data.mix is not; set both, or none")
        return self


class OptimSection(_GrowingSection):
    """AdamW, its learning rate, and the objective."""

    _later = frozenset({"objective", "objective_options"})

    lr: float = Field(1e-3, gt=0, description="Highest learning rate.")
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="Last learning rate, as a part of lr (0 to 1).")
    warmup_steps: int = Field(0, ge=0, description="Steps over which the learning rate rises.")
    schedule: Literal["cosine", "wsd", "constant"] = Field(
        "cosine", description="cosine; wsd: constant, then a straight line down; or constant."
    )
    schedule_by: Literal["steps", "time"] = Field(
        "steps",
        description="What drives the schedule: steps, or time within max_seconds (no bitwise repeat).",
    )
    decay_fraction: float = Field(
        0.2, gt=0, le=1, description="Last part of a wsd run, which decays (0 to 1)."
    )
    weight_decay: float = Field(0.1, ge=0, description="Decay of matrices a step, times the learning rate.")
    decay_embeddings: bool = Field(False, description="Decay the embedding and output matrices too.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="Memory of AdamW's two moments (0 to 1).")
    eps: float = Field(1e-8, gt=0, description="Number added to the root of the second moment.")
    objective: str = Field(
        "next_token", description="What is minimised: next_token, far_tokens, or package.module:Class."
    )
    objective_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the objective, e.g. {min_context = 512} for far_tokens."
    )
    clip_norm: float | None = Field(1.0, gt=0, description='Longest gradient (L2 norm); "none": no limit.')
    on_nonfinite: Literal["raise", "skip"] = Field(
        "raise", description="At a loss or gradient that is not finite: stop, or leave the step out."
    )
    max_skips: int = Field(10, ge=0, description="Steps that a run may leave out before it stops.")


class RunSection(_GrowingSection):
    """Length of a run, its checkpoints and its logging."""

    _later = frozenset({"shard", "rank_seconds"})

    steps: int | None = Field(None, gt=0, description="Length of the run (steps).", json_schema_extra=_FREE)
    tokens: int | None = Field(
        None,
        gt=0,
        description="Length of the run (tokens), rounded up to steps of batch_size x length.",
        json_schema_extra=_FREE,
    )
    max_seconds: float | None = Field(
        None,
        gt=0,
        description="Longest time (seconds): of a session; with schedule_by = time, of the run.",
        json_schema_extra=_FREE,
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="Seed of the initial weights and of the order of the data."
    )
    device: str = Field(
        "auto", description='"cpu", "cuda", "cuda:1"; auto: cuda if there is one.', json_schema_extra=_FREE
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Type of the matrix products (autocast); weights and moments stay float32."
    )
    threads: int | None = Field(
        None, gt=0, description="CPU threads; unset: torch's own choice.", json_schema_extra=_FREE
    )
    shard: bool = Field(
        False,
        description="Under torchrun: each rank keeps a part of the weights, gradients and moments (FSDP2).",
        json_schema_extra=_FREE,
    )
    rank_seconds: float = Field(
        1800.0,
        gt=0,
        description="Under torchrun: longest wait for another rank (seconds).",
        json_schema_extra=_FREE,
    )
    deterministic: bool = Field(False, description="Let torch refuse operations that are not reproducible.")
    checkpoint_every: int | None = Field(
        1000, gt=0, description='Steps between checkpoints; "none": only by time.', json_schema_extra=_FREE
    )
    checkpoint_seconds: float | None = Field(
        600.0,
        gt=0,
        description='Time between checkpoints (seconds); "none": only by steps.',
        json_schema_extra=_FREE,
    )
    keep: int = Field(2, ge=2, description="Newest checkpoints to keep.", json_schema_extra=_FREE)
    eval_every: int | None = Field(
        None,
        gt=0,
        description="Steps between held-out losses; unset: only at the end.",
        json_schema_extra=_FREE,
    )
    eval_batches: int = Field(
        8, gt=0, description="Held-out batches read each time.", json_schema_extra=_FREE
    )
    log_every: int = Field(
        1, gt=0, description="Steps between rows of metrics.jsonl.", json_schema_extra=_FREE
    )


class Recipe(_Section):
    """A whole run. Build it with `Recipe.load` from a TOML file, or directly from sections."""

    model: ModelSection
    data: DataSection
    optim: OptimSection = Field(default_factory=lambda: OptimSection.model_validate({}))
    run: RunSection

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if self.run.steps is not None and self.run.tokens is not None:
            raise ValueError("run.steps and run.tokens are both set; expected one of them")
        if self.optim.schedule_by == "time" and self.run.max_seconds is None:
            raise ValueError('optim.schedule_by = "time" needs run.max_seconds, which is not set')
        if self.run.steps is None and self.run.tokens is None and self.optim.schedule_by == "steps":
            raise ValueError(
                "the length of the run is not set; set run.steps, run.tokens, or run.max_seconds with "
                'optim.schedule_by = "time"'
            )
        return self

    @classmethod
    def load(cls, path: str | Path, overrides: list[str] | None = None) -> "Recipe":
        """Read a recipe from a TOML file, then apply `overrides` ("optim.lr=1e-3"), and check the whole.

        Raises: InputError if the file cannot be read; ConfigError if it, or an override, is invalid.
        """
        path = Path(path)
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"Recipe {path} cannot be read: {error}.") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"Recipe {path} is not valid TOML: {error}.") from None
        return cls.parse(values, overrides, where=f"Recipe {path}")

    @classmethod
    def parse(
        cls, values: dict[str, Any], overrides: list[str] | None = None, where: str = "Recipe"
    ) -> "Recipe":
        """Check a tree of plain values with `overrides` applied. Raises: ConfigError that names each bad key."""
        tree = {name: dict(keys) if isinstance(keys, dict) else keys for name, keys in values.items()}
        for override in overrides or []:
            section, key, value = _parse_override(override)
            if isinstance(keys := tree.setdefault(section, {}), dict):
                keys[key] = value
        for keys in tree.values():
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
        if self.run.tokens is not None:
            return math.ceil(self.run.tokens / (self.data.batch_size * self.data.length))
        return self.run.steps

    def resolved(self) -> dict[str, Any]:
        """Return the whole tree as plain JSON values, defaults included."""
        return self.model_dump(mode="json")

    def fingerprint(self) -> str:
        """Hash of the run's fixed part: recipes that may resume each other have the same one."""
        return fingerprint(fixed_part(self.resolved()))


def fixed_part(resolved: dict[str, Any]) -> dict[str, Any]:
    """Return the flat "section.key" -> value map of a resolved recipe, without the keys that may change on resume."""
    flat = {f"{section}.{key}": value for section, keys in resolved.items() for key, value in keys.items()}
    free = {name for name, field in _fields().items() if field.json_schema_extra == _FREE}
    return {name: value for name, value in flat.items() if name not in free}


def recipe_changes(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return one line for each fixed key that differs between two resolved recipes."""
    old, new = fixed_part(saved), fixed_part(now)
    absent = object()
    return [
        f"{name}: {old.get(name, 'not set')!r} -> {new.get(name, 'not set')!r}"
        for name in sorted(old | new)
        if old.get(name, absent) != new.get(name, absent)
    ]


@dataclasses.dataclass(frozen=True)
class RecipeKey:
    """A key of a recipe: section.key, its type, its default in TOML ("required" without one), its meaning."""

    name: str
    type: str
    default: str
    description: str
    may_change_on_resume: bool


def list_keys() -> list[RecipeKey]:
    """List every key that a recipe may have, section by section."""
    return [
        RecipeKey(
            name,
            _type_name(field.annotation),
            "required" if field.is_required() else _toml_value(field.get_default(call_default_factory=True)),
            field.description or "",
            field.json_schema_extra == _FREE,
        )
        for name, field in _fields().items()
    ]


def _type_name(annotation: Any) -> str:
    """Name a type: int, float, "cosine" | "wsd", list of str ..."""
    if annotation is type(None):
        return "none"
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        return " | ".join(f'"{value}"' for value in inner)
    if get_origin(annotation) in (list, tuple):
        return f"list of {_type_name(inner[0])}"
    if get_origin(annotation) is dict:
        return "table"
    if inner:
        return " | ".join(_type_name(one) for one in inner)
    return getattr(annotation, "__name__", str(annotation))


def _toml_value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{}" if not value else str(value)
    return f'"{value}"' if isinstance(value, str) else str(list(value) if isinstance(value, tuple) else value)


def _sections() -> dict[str, type[BaseModel]]:
    return {"model": ModelSection, "data": DataSection, "optim": OptimSection, "run": RunSection}


def _fields() -> dict[str, Any]:
    """Return every field of a recipe by its full name."""
    return {
        f"{name}.{key}": field
        for name, section in _sections().items()
        for key, field in section.model_fields.items()
    }


def _parse_override(text: str) -> tuple[str, str, Any]:
    """Split "optim.lr=1e-3" into ("optim", "lr", 0.001). Values are TOML; other text is a string."""
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    section, dot, key = name.partition(".")
    if not (equals and dot and key):
        raise ConfigError(f"--set got {text!r}; expected SECTION.KEY=VALUE, for example optim.lr=1e-3.")
    if section not in _sections():
        raise ConfigError(f"--set got {text!r}: {_unknown(section, list(_sections()), 'section')}")
    if name not in _fields():
        raise ConfigError(f"--set got {text!r}: {_unknown_key(section, key)}")
    return section, key, parse_value(value)


def _explain(problem: Any) -> str:
    """Format one of pydantic's errors in one line: the key, the value given, the values accepted."""
    location = [str(part) for part in problem["loc"]]
    name = ".".join(location) or "the recipe"
    if problem["type"] == "extra_forbidden" and len(location) == 1:
        return _unknown(location[0], list(_sections()), "section")
    if problem["type"] == "extra_forbidden":
        return _unknown_key(location[0], location[1])
    if problem["type"] == "missing":
        field = _fields().get(name)
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
