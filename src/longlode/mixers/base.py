"""What every token mixer answers, so that one backbone and one set of law tests serve them all.

A mixer is one file: a `MixerConfig` with its settings and its name, and the `Mixer` that it builds.
"""

import dataclasses
import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from longlode.core.errors import ConfigError
from longlode.mixers.context import SequenceContext
from longlode.mixers.segment_map import SegmentMap
from longlode.mixers.short_conv import ShortConv

State = dict[str, Tensor]
"""What a mixer carries from one piece of a sequence to the next: named tensors, one row per document in each."""

_NOTHING: Any = dataclasses.MISSING


def setting(
    doc: str, default: Any = _NOTHING, *, least: float | None = None, shared: str | None = None
) -> Any:
    """A field of a `MixerConfig`.

    Args: doc: what it is, with its unit; one or more sentences. default: none makes it required. least: smallest
      number allowed. shared: the model-wide setting that fills it in where a layer does not say (see
      `LonglodeConfig`); several separated by spaces are tried in turn.
    """
    metadata = {"doc": doc, "least": least, "shared": (shared or "").split()}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class MixerConfig(ABC):
    """The settings of one kind of mixer; each kind has a subclass, a frozen dataclass, with a `name`.

    Fields are made with `setting`, and are numbers, truth values or text: a config is plain data (`to_dict`).
    """

    name: ClassVar[str]
    """How a stack of layers names this kind."""
    layer_type: ClassVar[str] = "linear_attention"
    """How transformers calls this kind of layer; one of its closed list."""

    @abstractmethod
    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> "Mixer":
        """A mixer of these settings, as layer `layer_idx` of `num_layers`, on a residual stream of `hidden_size`."""

    def __post_init__(self) -> None:
        """Check type and range of every field. Raises ConfigError that names it."""
        for one in dataclasses.fields(self):
            value, allowed = getattr(self, one.name), _types_of(one.type)
            fits = type(value) in allowed or (type(value) is int and float in allowed)
            least = one.metadata.get("least")
            if not fits or (least is not None and value is not None and value < least):
                low = f" of at least {least}" if least is not None else ""
                names = " or ".join("none" if kind is type(None) else kind.__name__ for kind in allowed)
                raise ConfigError(f"{one.name} is {value!r}; expected {names}{low} ({self.name}).")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_settings(cls, given: Mapping[str, Any], shared: Mapping[str, Any] | None = None) -> Self:
        """The config of a layer that gives some settings itself and takes others from the model.

        Args: given: the layer's own. shared: model-wide ones, for fields that name them (`setting`).
        Raises: ConfigError on unknown and on missing settings.
        """
        fields = {one.name: one for one in dataclasses.fields(cls)}
        if unknown := sorted(set(given) - set(fields)):
            close = difflib.get_close_matches(unknown[0], fields, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"{cls.name} has no setting {unknown[0]!r}.{hint} It has: {', '.join(fields)}.")
        values = dict(given)
        for name, one in fields.items():
            sources = [key for key in one.metadata.get("shared", ()) if (shared or {}).get(key) is not None]
            if name not in values and sources:
                values[name] = (shared or {})[sources[0]]
        missing = [name for name, one in fields.items() if name not in values and one.default is _NOTHING]
        if missing:
            raise ConfigError(f"{cls.name} needs {', '.join(missing)}; the layer does not say.")
        return cls(**values)


def _types_of(annotation: Any) -> tuple[type, ...]:
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


@dataclass(frozen=True, kw_only=True)
class MixerTraits:
    """What a mixer can do. The laws of the tests, loading, export and parallel training go by this."""

    causal: Literal["always", "after the prefix", "no"] = "always"
    """Whether an output depends on later tokens: never, only inside the prefix of its document, or anywhere."""
    constant_state: bool = True
    """The state's size does not depend on how much was read."""
    packs: bool = True
    """Several documents may stand in one row."""
    steps: bool = True
    """Reading token by token gives what reading at once gives."""
    shards: Literal["map", "gather", None] = None
    """How parts of a sequence on several ranks hang together: by `segment_map`, by gathered keys and values, or not."""
    exports_any_length: bool = False
    """torch.export takes a dynamic length."""
    twice_differentiable: bool = False
    """Gradients of gradients are right (of attention: with torch's plain kernel, `sdpa_kernel(SDPBackend.MATH)`)."""
    has_weights: bool = False
    """It can return attention weights."""
    reads_token_ids: bool = False
    """It needs `SequenceContext.token_ids`, so the text cannot come as embeddings."""


class MixerOutput(NamedTuple):
    """What `Mixer.forward` returns."""

    y: Tensor
    """`[B, T, D]`."""
    state: State
    """After the last token, in new tensors; one row per document of a packed row. Empty if it was not asked for."""
    aux_losses: Mapping[str, Tensor] = {}
    """Scalars to add to the training loss, weighted by the mixer's own settings."""
    metrics: Mapping[str, Tensor] = {}
    """Detached scalars worth logging."""
    weights: Tensor | None = None
    """Attention weights `[B, heads, T, keys]`, if asked for and if there are any."""


class ParameterRule(NamedTuple):
    """How the optimizer treats a parameter."""

    decays: bool
    """Whether weight decay applies."""
    lr_scale: float = 1.0
    """The learning rate, as a multiple of the run's."""


class Mixer(nn.Module, ABC):
    """A layer that moves information between tokens.

    Laws, checked by one shared test for every mixer, as far as its traits claim them: causality; in pieces = whole;
    step by step = whole; packed = separate, from states of their own too; padding at either end = no padding; parts on
    several ranks = whole; cost and state as claimed.
    """

    traits: ClassVar[MixerTraits] = MixerTraits()
    float32_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters that half precision would spoil; they stay float32 in models of any narrower dtype."""
    kept_parameters: ClassVar[tuple[str, ...]] = ()
    """Vectors that are computed with in any dtype, so that a checkpoint's own may be kept, as those of norms are."""

    @abstractmethod
    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """Mix a piece of a sequence, going on from `state`.

        Args:
          x: `[B, T, D]`.
          state: what the call on the piece before returned, or None at the start.
          context: where documents, padding and prefixes stand; None: every row is one document, nothing is padding.
            Padding neither writes to the state nor is read; outputs there are meaningless.
        Raises: ConfigError on wrong shapes or on a combination that the mixer cannot do.
        """

    def step(self, x_t: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Mix one token: x_t `[B, D]` -> (y_t `[B, D]`, state), as `forward` does on a piece of one."""
        output = self(x_t[:, None], state)
        return output.y[:, 0], output.state

    def segment_map(self, x: Tensor, context: SequenceContext | None = None) -> SegmentMap:
        """The map of a piece on the state called `memory`, for mixers whose trait `shards` is "map"."""
        raise ConfigError(f"{type(self).__name__} has no map of a piece on its state (traits.shards).")

    @abstractmethod
    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """The state of one row after `num_tokens` tokens in activations of `dtype`, as tensors on the meta device."""

    @abstractmethod
    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """Operations per token beside those of Linear and ShortConv modules (a multiply-add is two).

        Mean over a sequence of `num_tokens`. Kernels of our own are invisible to torch's counter, hence this number.
        """

    def flops_per_token(self, num_tokens: int) -> float:
        """Forward floating-point operations per token, mean over a sequence of `num_tokens` tokens."""
        dense = sum(2 * m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear | ShortConv))
        return dense + self.mixing_flops_per_token(num_tokens)

    def state_bytes(self, num_tokens: int, dtype: torch.dtype = torch.float32) -> int:
        """Bytes of the state of one row after `num_tokens` tokens in activations of `dtype`."""
        return sum(value.nbytes for value in self.state_layout(num_tokens, dtype).values())

    def initial_values(self) -> dict[str, Tensor]:
        """First values of parameters that are no Linear, norm or convolution; drawn anew a call."""
        return {}

    def parameter_rules(self) -> dict[str, ParameterRule]:
        """How the optimizer treats each parameter, by name: matrices decay, everything else does not."""
        return {name: ParameterRule(parameter.ndim == 2) for name, parameter in self.named_parameters()}


def zero_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    """x `[B, T, D]`, 0 where mask `[B, T]` is False; filled, not multiplied: padding may hold NaN."""
    return x if mask is None else x.masked_fill(~mask[..., None], 0)


def empty_state(like: torch.dtype, **shapes: tuple[int, ...]) -> State:
    """Tensors on the meta device of the given shapes, for `Mixer.state_layout`."""
    return {name: torch.empty(shape, dtype=like, device="meta") for name, shape in shapes.items()}
