"""The sections of a recipe: every key with its type, limits, default, description and unit."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
    model_validator,
)

from longlode.core.errors import ConfigError
from longlode.core.mixes import parse_mix
from longlode.models import LonglodeConfig
from longlode.parallel import ATTENTION_SCHEMES
from longlode.parallel.planner import CostModel

FREE: dict[str, Any] = {"may_change_on_resume": True}
"""Mark of keys that may change when a run resumes; all others belong to the run."""


class Section(BaseModel):
    """A table of a recipe: unknown keys are refused, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GrowingSection(Section):
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


class _ModelKeys(GrowingSection):
    _later = frozenset(
        {"layers", "num_v_heads", "expand_v", "attn_num_heads", "attn_head_dim", "qkv_bias", "rope"}
    )

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


class DataSection(GrowingSection):
    """Input of one step."""

    _later = frozenset({"packer", "packer_options", "mix", "mix_epochs", "skill_it"})

    shards: str | list[str] | None = Field(
        None,
        description="Folder(s) written by `longlode pack`; their content, not their path, is the run's.",
        json_schema_extra=FREE,
    )
    length: int = Field(gt=1, description="Length of a sequence (tokens).")
    batch_size: int = Field(gt=0, description="Sequences a step.")
    micro_batch_size: int | None = Field(
        None,
        gt=0,
        description="Sequences in memory at once, gradients add up; unset: batch_size.",
        json_schema_extra=FREE,
    )
    packer: str = Field(
        "concat",
        description="How documents become rows: concat, truncate, best_fit, decompose, related, masked, "
        "landmark; package.module:Class.",
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
    skill_it: dict[str, Any] | None = Field(
        None,
        description="Let the shares of the mixture follow its groups' held-out losses, e.g. {every = 100, rate = 0.5}; "
        "unset: they stay.",
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
        if self.skill_it is not None and (self.mix is None or not self.heldout_fraction):
            raise ValueError(
                "data.skill_it needs groups, data.mix, and held-out documents, data.heldout_fraction"
            )
        return self


class OptimSection(GrowingSection):
    """AdamW, its learning rate, and the objective."""

    _later = frozenset({"objective", "objective_options", "spike_sigma"})

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
        "next_token",
        description="What is minimised: next_token, far_tokens, long_ce, prefix_lm, masked_lm, distill, or "
        "package.module:Class.",
    )
    objective_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the objective, e.g. {min_context = 512} for far_tokens."
    )
    clip_norm: float | None = Field(1.0, gt=0, description='Longest gradient (L2 norm); "none": no limit.')
    on_nonfinite: Literal["raise", "skip"] = Field(
        "raise", description="At a loss or gradient that is not finite: stop, or leave the step out."
    )
    spike_sigma: float | None = Field(
        None,
        gt=0,
        description="Leave out steps whose loss or gradient norm is so many standard deviations above the mean of the "
        "128 before; 6 is usual. Unset: none.",
    )
    max_skips: int = Field(10, ge=0, description="Steps that a run may leave out before it stops.")


class RunSection(GrowingSection):
    """Length of a run, its checkpoints and its logging."""

    _later = frozenset({"start", "shard", "rank_seconds", "track", "gradient_checkpointing"})

    start: str | None = Field(
        None,
        description="Model to start from, in place of [model]: starter, a run, a folder (of longlode, fla or "
        "transformers) or a hub id; unset: new weights.",
        json_schema_extra=FREE,
    )
    steps: int | None = Field(None, gt=0, description="Length of the run (steps).", json_schema_extra=FREE)
    tokens: int | None = Field(
        None,
        gt=0,
        description="Length of the run (tokens), rounded up to steps of batch_size x length.",
        json_schema_extra=FREE,
    )
    max_seconds: float | None = Field(
        None,
        gt=0,
        description="Longest time (seconds): of a session; with schedule_by = time, of the run.",
        json_schema_extra=FREE,
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="Seed of the initial weights and of the order of the data."
    )
    device: str = Field(
        "auto", description='"cpu", "cuda", "cuda:1"; auto: cuda if there is one.', json_schema_extra=FREE
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Type of the matrix products (autocast); weights and moments stay float32."
    )
    threads: int | None = Field(
        None, gt=0, description="CPU threads; unset: torch's own choice.", json_schema_extra=FREE
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Keep the inputs of blocks alone and compute the rest again in backward: less memory, a third more "
        "arithmetic, the same gradients.",
        json_schema_extra=FREE,
    )
    shard: bool = Field(
        False,
        description="Under torchrun: each rank keeps a part of the weights, gradients and moments (FSDP2).",
        json_schema_extra=FREE,
    )
    rank_seconds: float = Field(
        1800.0,
        gt=0,
        description="Under torchrun: longest wait for another rank (seconds).",
        json_schema_extra=FREE,
    )
    deterministic: bool = Field(False, description="Let torch refuse operations that are not reproducible.")
    checkpoint_every: int | None = Field(
        1000, gt=0, description='Steps between checkpoints; "none": only by time.', json_schema_extra=FREE
    )
    checkpoint_seconds: float | None = Field(
        600.0,
        gt=0,
        description='Time between checkpoints (seconds); "none": only by steps.',
        json_schema_extra=FREE,
    )
    keep: int = Field(2, ge=2, description="Newest checkpoints to keep.", json_schema_extra=FREE)
    eval_every: int | None = Field(
        None,
        gt=0,
        description="Steps between held-out losses; unset: only at the end.",
        json_schema_extra=FREE,
    )
    eval_batches: int = Field(8, gt=0, description="Held-out batches read each time.", json_schema_extra=FREE)
    log_every: int = Field(
        1, gt=0, description="Steps between rows of metrics.jsonl.", json_schema_extra=FREE
    )
    track: list[Literal["tensorboard", "trackio"]] = Field(
        default_factory=list,
        description="Sinks for the rows of metrics.jsonl besides the file (extra `track`).",
        json_schema_extra=FREE,
    )


class ParallelSection(GrowingSection):
    """Sequences on several ranks (`longlode.parallel`)."""

    _later = frozenset({"sequence", "attention", "states", "groups", "max_tokens", "cost", "sizes"})

    sequence: int = Field(
        1,
        ge=1,
        description="Under torchrun: ranks that share each sequence; the number of ranks is a multiple of it.",
        json_schema_extra=FREE,
    )
    attention: str = Field(
        "gather",
        description="Scheme of softmax attention: gather, ring, ring_balanced, ring_scores or ulysses.",
        json_schema_extra=FREE,
    )
    states: Literal["fold", "ulysses"] = Field(
        "fold",
        description="Recurrent mixers: fold the states of pieces, or exchange sequence for heads (ulysses).",
        json_schema_extra=FREE,
    )

    groups: Literal["equal", "fitted"] = Field(
        "equal",
        description="equal: `sequence` ranks for each sequence; fitted: groups of different sizes, chosen for the "
        "documents of each step (extra `planner`).",
        json_schema_extra=FREE,
    )
    max_tokens: int | None = Field(
        None,
        gt=0,
        description="Fitted groups: most tokens that a rank holds at once.",
        json_schema_extra=FREE,
    )
    cost: dict[str, Annotated[float, Field(ge=0)]] | str | None = Field(
        None,
        description="Fitted groups: seconds of a step, {fixed, per_rank, per_token, per_pair, per_sent}, or a file of "
        "`python -m benchmarks.sharding_cost`.",
        json_schema_extra=FREE,
    )
    sizes: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, description="Fitted groups: sizes to choose from; unset: all.", json_schema_extra=FREE
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.groups == "fitted":
            self._check_fitted()
        if self.attention not in ATTENTION_SCHEMES:
            raise ValueError(
                f"parallel.attention is {self.attention!r}; expected one of {', '.join(ATTENTION_SCHEMES)}"
            )
        return self

    def _check_fitted(self) -> None:
        wanted = [entry.name for entry in dataclasses.fields(CostModel)]
        if self.sequence != 1:
            raise ValueError(
                f"parallel.sequence is {self.sequence} and parallel.groups fitted; leave sequence out"
            )
        known = isinstance(self.cost, str) or sorted(self.cost or {}) == sorted(wanted)
        if self.max_tokens is None or not known:
            raise ValueError(
                "parallel.groups is fitted; expected parallel.max_tokens, and parallel.cost, a file or "
                f"{', '.join(wanted)}"
            )
