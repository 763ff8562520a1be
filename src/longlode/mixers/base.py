"""Interface of token mixers, shared by the backbone and by one set of tests.

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
from longlode.mixers.forgetting import Forgetting
from longlode.mixers.segment_map import SegmentMap
from longlode.mixers.short_conv import ShortConv
from longlode.mixers.token_store import TokenStore

State = dict[str, Tensor]
"""State of a mixer between pieces of a sequence: named tensors, each with one row per document."""

_NOTHING: Any = dataclasses.MISSING


def setting(
    doc: str, default: Any = _NOTHING, *, least: float | None = None, shared: str | None = None
) -> Any:
    """Make a field of a `MixerConfig`.

    Args: doc: its meaning and unit, in one or more sentences. default: none makes it required. least: smallest
      number allowed. shared: the model-wide setting used if a layer does not set the field (see
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
    """Name of this kind in a stack of layers."""
    layer_type: ClassVar[str] = "linear_attention"
    """transformers' name of this kind of layer, from its closed list."""

    @abstractmethod
    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> "Mixer":
        """Make a mixer of these settings: layer `layer_idx` of `num_layers`, on a residual stream of `hidden_size`."""

    def __post_init__(self) -> None:
        """Check type and range of every field. Raises: ConfigError that names the field."""
        for one in dataclasses.fields(self):
            value, allowed = getattr(self, one.name), _types_of(one.type)
            fits = type(value) in allowed or (type(value) is int and float in allowed)
            least = one.metadata.get("least")
            if not fits or (least is not None and value is not None and value < least):
                low = f" of at least {least}" if least is not None else ""
                names = " or ".join("none" if kind is type(None) else kind.__name__ for kind in allowed)
                raise ConfigError(f"{one.name} is {value!r}; expected {names}{low} ({self.name}).")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_settings(cls, given: Mapping[str, Any], shared: Mapping[str, Any] | None = None) -> Self:
        """Make the config of a layer from its own settings and those of the model.

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


@dataclass(frozen=True, kw_only=True)
class HeadsConfig(MixerConfig):
    """Settings of mixers whose heads have keys as wide as values."""

    num_heads: int = setting("H, heads.", least=1, shared="num_heads")
    head_dim: int = setting("K = V, width of a head.", least=1, shared="head_dim")


def _types_of(annotation: Any) -> tuple[type, ...]:
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


@dataclass(frozen=True, kw_only=True)
class MixerTraits:
    """Abilities of a mixer, used by the shared tests, loading, export and parallel training."""

    causal: Literal["always", "after the prefix", "no"] = "always"
    """Causality of outputs: always, only after the prefix of the document, or not at all."""
    constant_state: bool = True
    """The state's size does not depend on the text length."""
    packs: bool = True
    """Several documents may share one row."""
    steps: bool = True
    """Reading token by token gives the result of reading at once."""
    shards: Literal["map", "gather", None] = None
    """Method to combine parts of a sequence on several ranks: `segment_map`, gathered keys and values, or none."""
    exports_any_length: bool = False
    """torch.export accepts a dynamic length."""
    twice_differentiable: bool = False
    """Gradients of gradients are correct (for attention: with torch's plain kernel, `sdpa_kernel(SDPBackend.MATH)`)."""
    has_weights: bool = False
    """It can return attention weights."""
    narrow_input: bool = False
    """Its input reaches nothing but linear layers: under autocast it may come rounded as they would round it."""
    reads_token_ids: bool = False
    """It needs `SequenceContext.token_ids`, so the text cannot come as embeddings."""


class MixerOutput(NamedTuple):
    """Result of `Mixer.forward`."""

    y: Tensor
    """Outputs `[B, T, D]`."""
    state: State
    """State after the last token, in new tensors; one row per document of a packed row. Empty if not requested."""
    aux_losses: Mapping[str, Tensor] = {}
    """Scalars to add to the training loss, weighted by the mixer's own settings."""
    metrics: Mapping[str, Tensor] = {}
    """Detached scalars to log."""
    weights: Tensor | None = None
    """Attention weights `[B, heads, T, keys]`, if requested and if there are any."""


class ParameterRule(NamedTuple):
    """Treatment of a parameter by the optimizer."""

    decays: bool
    """True if weight decay applies."""
    lr_scale: float = 1.0
    """Factor on the run's learning rate."""


class Mixer(nn.Module, ABC):
    """A layer that moves information between tokens.

    Laws, checked by one shared test for every mixer, as far as its traits claim them: causality; in pieces = whole;
    step by step = whole; packed = separate, also from given states; padding at either end = no padding; parts on
    several ranks = whole; cost and state size as declared.
    """

    traits: ClassVar[MixerTraits] = MixerTraits()
    float32_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters for which half precision is too coarse; they stay float32 in models of any narrower dtype."""
    kept_parameters: ClassVar[tuple[str, ...]] = ()
    """Vectors usable in any dtype, which keep the dtype of a checkpoint, as the weights of norms do."""
    forgetting: Forgetting | None = None
    """Inference settings of a memory `[N, H, K, V]` with a linear rule, not saved with a model; None: the mixer has no
    such memory. `models.mitigations` sets them."""
    token_store: TokenStore | None = None
    """Storage of the keys and values of all tokens, for mixers that read few of them at a time; None: they have no such
    store."""

    @abstractmethod
    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """Mix a piece of a sequence, continuing from `state`.

        Args:
          x: `[B, T, D]`.
          state: the state after the piece before, or None at the start.
          context: documents, padding and prefixes; None: every row is one document without padding.
            Padding has no effect on the state or on other outputs; outputs there are undefined.
        Raises: ConfigError on wrong shapes or on an unsupported combination.
        """

    def step(self, x_t: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Mix one token: x_t `[B, D]` -> (y_t `[B, D]`, state), as `forward` does on a piece of one."""
        output = self(x_t[:, None], state)
        return output.y[:, 0], output.state

    def segment_map(self, x: Tensor, context: SequenceContext | None = None) -> SegmentMap:
        """Compute the map of a piece on the state entry `memory`, for mixers whose trait `shards` is "map"."""
        raise ConfigError(f"{type(self).__name__} has no map of a piece on its state (traits.shards).")

    @abstractmethod
    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """Return the state of one row after `num_tokens` tokens, with activations of `dtype`, as meta tensors."""

    @abstractmethod
    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """Count operations per token, without those of Linear and ShortConv modules (a multiply-add is two).

        Mean over a sequence of `num_tokens`. torch's own counter does not see custom kernels.
        """

    def flops_per_token(self, num_tokens: int) -> float:
        """Count forward floating-point operations per token, mean over a sequence of `num_tokens` tokens."""
        dense = sum(2 * m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear | ShortConv))
        return dense + self.mixing_flops_per_token(num_tokens)

    def state_bytes(self, num_tokens: int, dtype: torch.dtype = torch.float32) -> int:
        """Count the bytes of the state of one row after `num_tokens` tokens, with activations of `dtype`."""
        return sum(value.nbytes for value in self.state_layout(num_tokens, dtype).values())

    def initial_values(self) -> dict[str, Tensor]:
        """Draw initial values of parameters, by name.

        Without one weights of Linear and convolution modules are drawn from N(0, initializer_range).
        """
        return {}

    def parameter_rules(self) -> dict[str, ParameterRule]:
        """Return the optimizer's treatment of each parameter, by name: matrices decay, others do not.

        Parameters of a mixer inside this one are treated as that one says.
        """
        rules = {name: ParameterRule(parameter.ndim == 2) for name, parameter in self.named_parameters()}
        for child, module in self.named_children():
            if isinstance(module, Mixer):
                rules |= {f"{child}.{name}": rule for name, rule in module.parameter_rules().items()}
        return rules


def rules_of(model: nn.Module) -> dict[int, ParameterRule]:
    """Map the `id` of each parameter of a mixer inside `model` to the optimizer's treatment of it."""
    rules: dict[int, ParameterRule] = {}
    for module in model.modules():
        if isinstance(module, Mixer):
            own = dict(module.named_parameters())
            rules |= {id(own[name]): rule for name, rule in module.parameter_rules().items()}
    return rules


def zero_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    """Set x `[B, T, D]` to 0 where mask `[B, T]` is False; filled, not multiplied, as padding may hold NaN."""
    return x if mask is None else x.masked_fill(~mask[..., None], 0)


def empty_state(like: torch.dtype, **shapes: tuple[int, ...]) -> State:
    """Make meta tensors of the given shapes, for `Mixer.state_layout`."""
    return {name: torch.empty(shape, dtype=like, device="meta") for name, shape in shapes.items()}
