"""The configuration of a longlode language model: sizes, and the stack of layers as data."""

import dataclasses
import math
from typing import Any, ClassVar

import torch
from transformers.configuration_utils import PreTrainedConfig

from longlode.core.errors import ConfigError
from longlode.models.layers import (
    LayerConfig,
    layers_of_list,
    layers_of_stack,
    providers_of,
    short_name,
)

_MLP_MULTIPLE = 256
_DEFAULT_STACK = "D*24"
# Fields derived from the stack, and the fields that define the stack.
_DERIVED = ("num_hidden_layers", "layer_types", "mixer_providers")
_STACK = ("mixers", "layers")
# Saved only if set: a config without them stays equal to one of a version that had none.
_WRITTEN_IF_SET = ("layers", "mixer_providers", "num_v_heads")


def _described(default: Any, doc: str, least: int | None = None) -> Any:
    """Make a field with its description, shown in recipes and the reference, and the least number allowed."""
    return dataclasses.field(default=default, metadata={"doc": doc, "least": least})


class LonglodeConfig(PreTrainedConfig):
    """Sizes and stack of a `LonglodeForCausalLM`.

    Args (all by keyword):
      vocab_size: rows of the embedding.
      hidden_size: D, width of the residual stream.
      mixers: the stack, one letter per layer: D DeltaNet, G Gated DeltaNet, S sliding-window attention,
        A full attention, and to compare with L linear attention, C gated linear attention (GLA, a decay per
        Channel), M Mamba-2; "*n" repeats the letters before it, a space starts a new group ("D*24", "DS*12",
        "D A D*22").
      layers: instead of mixers, a list with an entry per layer: the name of a mixer ("delta_net"), or a table with
        `mixer` (a name, or `package.module:Class`), `block` ("mixer_mlp", "mixer" or "parallel") and settings of the
        mixer, which then differ by layer: {"mixer": "sliding_window_attention", "window": 512}.
      The other fields are the settings of all layers that do not set their own:
      num_heads: heads of every mixer.
      head_dim: width of a head (default: hidden_size / num_heads).
      attn_num_heads, attn_head_dim: the same for S and A layers if they differ (default for the second:
        hidden_size / attn_num_heads). num_kv_heads: their key and value heads (default: as many as query heads).
      qkv_bias: biases on q, k and v of S and A layers.
      num_v_heads: heads of values in D and G layers, a multiple of num_heads, each of whose heads then serves several
        (default: num_heads).
      expand_v: width of a value in D and G layers, over that of a key (head_dim).
      intermediate_size: width of the SwiGLU (default: 8/3 of hidden_size, rounded up to a multiple of 256).
      window: tokens that S layers see, the current one included.
      conv_size: tokens that the short convolutions of D, G and M layers see.
      allow_neg_eigval: beta in (0, 2) instead of (0, 1) in D and G layers.
      use_output_gate: gate the output of D and G layers (C and M always do, L, S and A never).
      rope_theta: base of the rotary frequencies of S and A layers.   rope: False: these know no positions.
      norm_eps, initializer_range, tie_word_embeddings, use_cache, bos/eos/pad_token_id: as in transformers.
    `layer_types`, `num_hidden_layers` and `mixer_providers` (the package of each mixer that longlode does not bring)
    follow from the stack, also when it is changed later.
    Raises: ConfigError on sizes that do not fit together and on a stack that cannot be read; BackendError when a layer
      needs a package that is not installed.
    """

    model_type = "longlode"
    keys_to_ignore_at_inference = ["cache", "past_key_values", "aux_loss", "metrics"]  # noqa: RUF012 - transformers' own
    auto_map: ClassVar[dict[str, str]] = {}
    """No code on the hub: TRL reads this from every config. Not a field, so that config.json does not have it."""
    attribute_map = {  # noqa: RUF012
        "num_attention_heads": "num_heads",
        "num_key_value_heads": "num_kv_heads",
        "sliding_window": "window",
        "rms_norm_eps": "norm_eps",
    }

    vocab_size: int = 32000
    hidden_size: int = _described(1024, "Width of the residual stream (numbers per token).")
    mixers: str | None = _described(
        None, 'Mixer of each layer, first to last, by letters, e.g. "D*4", "DS*2", "DDAD".'
    )
    layers: list[Any] | None = _described(
        None,
        "Instead of mixers: per layer the name of a mixer, or a table with mixer, block (mixer_mlp, mixer, parallel) "
        "and the mixer's own settings.",
    )
    num_heads: int = _described(8, "Heads of a mixer.")
    num_kv_heads: int | None = _described(None, "Key and value heads of attention mixers; unset: num_heads.")
    head_dim: int | None = _described(
        None, "Width of a head (numbers per token); unset: hidden_size / num_heads."
    )
    num_v_heads: int | None = _described(
        None, "Heads of values in the delta rule's layers, a multiple of num_heads; unset: num_heads."
    )
    expand_v: float = _described(1.0, "Width of a value over that of a key in the delta rule's layers.")
    intermediate_size: int | None = _described(
        None, "Width of the SwiGLU layer; unset: 8/3 of hidden_size, rounded up to 256."
    )
    window: int = _described(2048, "Span of sliding-window mixers, own token included (tokens).")
    conv_size: int = _described(4, "Width of the short convolution (tokens).", least=2)
    allow_neg_eigval: bool = _described(False, "Let beta reach 2, so that the state may flip signs.")
    use_output_gate: bool = _described(False, "Gate the output of the delta rule's layers.")
    rope_theta: float = _described(10000.0, "Base of the rotary positions of attention mixers.")
    attn_num_heads: int | None = _described(None, "Query heads of attention mixers; unset: num_heads.")
    attn_head_dim: int | None = _described(
        None, "Width of a head of attention mixers; unset: hidden_size / attn_num_heads, or head_dim."
    )
    rope: bool = _described(True, "Rotate queries and keys of full and sliding-window attention by position.")
    qkv_bias: bool = _described(False, "Add biases to queries, keys and values of attention mixers.")
    norm_eps: float = _described(1e-6, "Number added to the mean square in RMSNorm.")
    initializer_range: float = _described(0.02, "Standard deviation of the initial weights.")
    tie_word_embeddings: bool = _described(False, "Use the embedding matrix as the output matrix too.")
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    layer_types: list[str] | None = None
    num_hidden_layers: int | None = None
    mixer_providers: dict[str, str] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in derived fields, and check that all fields fit together."""
        if kwargs.pop("_read_from_file", False):
            self._saved = True
        self._fill_in_sizes()
        self._stack_changed(self.num_hidden_layers)
        super().__post_init__(**kwargs)
        _register_models()
        self.__dict__.pop("_saved", None)
        self._ready = True

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field and update the fields derived from the stack, which cannot be set to other values."""
        if not self.__dict__.get("_ready") or name not in (*_STACK, *_DERIVED):
            super().__setattr__(name, value)
        elif name in _STACK:
            super().__setattr__(name, value)
            for other in {*_STACK} - {name} if value is not None else ():
                super().__setattr__(other, None)
            self._stack_changed(None)
        elif value != getattr(self, name):
            raise self._contradiction(name, value)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a config as in transformers; overrides are applied first, so that derived fields are not stale."""
        names = {field.name for field in dataclasses.fields(cls)}
        own = {cls.attribute_map.get(name, name): value for name, value in kwargs.items()}
        given = {name: value for name, value in own.items() if name in names}
        fields = {**config_dict, "_read_from_file": True}
        if set(given) & {*_STACK}:
            fields = {name: value for name, value in fields.items() if name not in (*_STACK, *_DERIVED)}
        rest = {
            name: value for name, value in kwargs.items() if cls.attribute_map.get(name, name) not in given
        }
        return super().from_dict({**fields, **given}, **rest)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        fields = super().to_dict()
        unset = [name for name in _WRITTEN_IF_SET if fields.get(name) is None]
        return {name: value for name, value in fields.items() if name not in ("_ready", *unset)}

    def _fill_in_sizes(self) -> None:
        """Check every number separately, and derive those that were left out."""
        given = (
            "num_kv_heads",
            "num_v_heads",
            "head_dim",
            "intermediate_size",
            "attn_num_heads",
            "attn_head_dim",
        )
        for name in ("vocab_size", "hidden_size", "num_heads", "window", "conv_size", *given):
            value = getattr(self, name)
            if value is None and name in given:
                continue
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value!r}; expected a whole number of at least 1.")
        for name in ("norm_eps", "initializer_range"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise ConfigError(
                    f"{name} is {value!r}; expected a finite number of at least 0, such as 1e-6."
                )
        if self.num_kv_heads is None:
            self.num_kv_heads = self.attn_num_heads or self.num_heads
        if self.intermediate_size is None:
            self.intermediate_size = -(-8 * self.hidden_size // (3 * _MLP_MULTIPLE)) * _MLP_MULTIPLE
        if self.head_dim is None:
            if self.hidden_size % self.num_heads:
                raise ConfigError(
                    f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}; "
                    "change one of them or set head_dim."
                )
            self.head_dim = self.hidden_size // self.num_heads

    def _stack_changed(self, num_hidden_layers: int | None) -> None:
        """Read the stack again. Args: num_hidden_layers: the number of layers claimed by the caller, or None."""
        if self.mixers is not None and self.layers is not None:
            raise ConfigError("mixers and layers were both given; they say the same thing. Leave one out.")
        if self.mixers is None and self.layers is None:
            self.__dict__["mixers"] = _DEFAULT_STACK
        layers = self.layer_configs
        if num_hidden_layers not in (None, len(layers)):
            raise self._contradiction("num_hidden_layers", num_hidden_layers)
        self.__dict__["num_hidden_layers"] = len(layers)
        self.__dict__["layer_types"] = [layer.mixer.layer_type for layer in layers]
        self.__dict__["mixer_providers"] = providers_of(layers)

    def _contradiction(self, name: str, value: Any) -> ConfigError:
        layers = self.layer_configs
        stack = self.mixers or short_name(layers)
        return ConfigError(
            f"{name} is {value!r} but the stack {stack!r} has {len(layers)} layers; leave {name} out, the stack "
            "decides."
        )

    @property
    def layer_configs(self) -> tuple[LayerConfig, ...]:
        """Mixer and block of each layer, with complete settings."""
        if self.layers is not None:
            return layers_of_list(self.layers, self._shared, self.mixer_providers, "_saved" in self.__dict__)
        if not isinstance(self.mixers, str):
            raise ConfigError(f"mixers is {self.mixers!r}; expected text such as 'D*24'.")
        return layers_of_stack(self.mixers, self._shared)

    @property
    def stack(self) -> str:
        """The stack as text: one letter per layer, or the name of its mixer in brackets."""
        return short_name(self.layer_configs)

    @property
    def _shared(self) -> dict[str, Any]:
        """Return the settings of layers that do not set their own."""
        names = [field.name for field in dataclasses.fields(self) if field.metadata.get("doc")]
        shared = {name: getattr(self, name) for name in names} | {"attn_head_dim": self._attn_head_dim}
        if self.num_kv_heads == (self.attn_num_heads or self.num_heads):
            # As many as the layer's own query heads, whose number may differ.
            shared["num_kv_heads"] = None
        return shared

    @property
    def _attn_head_dim(self) -> int | None:
        # Not stored like other sizes: a config without the field must stay equal to one of an older version.
        if self.attn_num_heads and not self.attn_head_dim:
            if self.hidden_size % self.attn_num_heads:
                raise ConfigError(
                    f"hidden_size {self.hidden_size} is not a multiple of attn_num_heads {self.attn_num_heads}; "
                    "change one of them or set attn_head_dim."
                )
            return self.hidden_size // self.attn_num_heads
        return self.attn_head_dim

    @property
    def num_params(self) -> int:
        """Count the parameters of the model with its language-model head; tied embeddings count once."""
        return sum(parameter.numel() for parameter in self._skeleton().parameters())

    def flops_per_token(self, num_tokens: int) -> float:
        """Compute the forward floating-point operations per token, mean over a sequence of `num_tokens`.

        A training step is about three times that. Counted: matrix products,
        convolutions, token mixing, the head; left out: norms and activations.
        """
        return self._skeleton().flops_per_token(num_tokens)

    def state_bytes(self, num_tokens: int, dtype: torch.dtype = torch.float32) -> int:
        """Compute the cache size in bytes after a sequence of `num_tokens`, in activations of `dtype`."""
        with torch.device("meta"):
            mixers = [
                layer.mixer.build(self.hidden_size, index, self.num_hidden_layers or 1)
                for index, layer in enumerate(self.layer_configs)
            ]
        return sum(mixer.state_bytes(num_tokens, dtype) for mixer in mixers)

    def _skeleton(self) -> Any:
        """Make the model of this configuration without memory for its weights (meta device)."""
        # Lazy, as below.
        from longlode.models.lm import LonglodeForCausalLM

        with torch.device("meta"):
            return LonglodeForCausalLM(self)


def _register_models() -> None:
    # Lazy on purpose: longlode's import hook imports this module when transformers' modeling modules may be
    # half imported, so it must not need them. They are registered when a config is made.
    from longlode.models import lm

    lm.register()
