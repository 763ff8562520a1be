"""The configuration of a longlode language model: sizes, and the stack of mixers as text."""

from typing import Any, ClassVar

import torch
from transformers.configuration_utils import PreTrainedConfig

from longlode.core.errors import ConfigError
from longlode.mixers import MIXERS, MixerSettings, parse_stack

_MLP_MULTIPLE = 256


class LonglodeConfig(PreTrainedConfig):
    """Sizes and stack of a `LonglodeForCausalLM`.

    Args (all by keyword):
      vocab_size: rows of the embedding.
      hidden_size: D, width of the residual stream.
      mixers: the stack, one letter a layer: D DeltaNet, G Gated DeltaNet, S sliding-window attention,
        A full attention, and to compare with L linear attention, C gated linear attention (GLA, a decay a
        Channel), M Mamba-2; "*n" repeats the letters before it, a space starts a new group ("D*24", "DS*12",
        "D A D*22").
      num_heads: heads of every mixer.
      head_dim: numbers in a head (default: hidden_size / num_heads).
      attn_num_heads, attn_head_dim: the same for S and A layers where they differ (default for the second:
        hidden_size / attn_num_heads). num_kv_heads: their key and value heads (default: as many as query heads).
      qkv_bias: biases on q, k and v of S and A layers.
      expand_v: width of a value in D and G layers, over that of a key (head_dim).
      intermediate_size: width of the SwiGLU (default: 8/3 of hidden_size, rounded up to a multiple of 256).
      window: tokens that S layers see, the current one included.
      conv_size: tokens that the short convolutions of D, G and M layers see.
      allow_neg_eigval: beta in (0, 2) instead of (0, 1) in D and G layers.
      use_output_gate: gate the output of D and G layers (C and M always do, L, S and A never).
      rope_theta: base of the rotary frequencies of S and A layers.
      norm_eps, initializer_range, tie_word_embeddings, use_cache, bos/eos/pad_token_id: as in transformers.
    `layer_types` and `num_hidden_layers` follow from the stack.
    Raises: ConfigError on sizes that do not fit together and on a stack that cannot be read.
    """

    model_type = "longlode"
    keys_to_ignore_at_inference = ["cache", "past_key_values"]  # noqa: RUF012 - the attribute is transformers' own
    auto_map: ClassVar[dict[str, str]] = {}
    """No code on the hub: TRL asks every config for this. Not a field, so that no config.json has it."""
    attribute_map = {  # noqa: RUF012
        "num_attention_heads": "num_heads",
        "num_key_value_heads": "num_kv_heads",
        "sliding_window": "window",
        "rms_norm_eps": "norm_eps",
    }

    vocab_size: int = 32000
    hidden_size: int = 1024
    mixers: str = "D*24"
    num_heads: int = 8
    num_kv_heads: int | None = None
    head_dim: int | None = None
    expand_v: float = 1.0
    intermediate_size: int | None = None
    window: int = 2048
    conv_size: int = 4
    allow_neg_eigval: bool = False
    use_output_gate: bool = False
    rope_theta: float = 10000.0
    attn_num_heads: int | None = None
    attn_head_dim: int | None = None
    qkv_bias: bool = False
    norm_eps: float = 1e-6
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    layer_types: list[str] | None = None
    num_hidden_layers: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what follows from other fields, and check that all fit together."""
        if not isinstance(self.mixers, str):
            raise ConfigError(f"mixers is {self.mixers!r}; expected text such as 'D*24'.")
        stack = parse_stack(self.mixers)
        if self.num_hidden_layers not in (None, len(stack)):
            raise ConfigError(
                f"num_hidden_layers is {self.num_hidden_layers} but the stack {self.mixers!r} has "
                f"{len(stack)} layers; leave num_hidden_layers out, the stack decides."
            )
        self.num_hidden_layers = len(stack)
        self.layer_types = [MIXERS[letter].layer_type for letter in stack]
        self._fill_in_sizes()
        self._check_heads(stack)
        super().__post_init__(**kwargs)
        _register_models()

    def _fill_in_sizes(self) -> None:
        """Check every size by itself, and derive those that were left out."""
        given = ("num_kv_heads", "head_dim", "intermediate_size", "attn_num_heads", "attn_head_dim")
        for name in ("vocab_size", "hidden_size", "num_heads", "window", "conv_size", *given):
            value = getattr(self, name)
            if value is None and name in given:
                continue
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value!r}; expected a whole number of at least 1.")
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

    def _check_heads(self, stack: str) -> None:
        """Check what the mixers of this stack ask of the sizes."""
        settings = self.mixer_settings()
        if settings.conv_size < 2:
            raise ConfigError(f"conv_size is {settings.conv_size}; expected at least 2 (the paper has 4).")
        if not isinstance(self.expand_v, int | float) or self.expand_v <= 0:
            raise ConfigError(f"expand_v is {self.expand_v!r}; expected a number above 0.")
        if settings.value_dim != settings.head_dim * settings.expand_v:
            raise ConfigError(
                f"expand_v {settings.expand_v} times head_dim {settings.head_dim} is no whole number."
            )
        if "C" in stack and settings.head_dim % 2:
            raise ConfigError(
                f"head_dim is {settings.head_dim}; C layers, whose keys are half a head wide, need an even one."
            )
        if set(stack) & {"A", "S"}:
            if self.attn_num_heads and not self.attn_head_dim and self.hidden_size % self.attn_num_heads:
                raise ConfigError(
                    f"hidden_size {self.hidden_size} is not a multiple of attn_num_heads {self.attn_num_heads}; "
                    "change one of them or set attn_head_dim."
                )
            if settings.query_heads % settings.num_kv_heads:
                raise ConfigError(
                    f"The {settings.query_heads} heads of attention are not a multiple of num_kv_heads "
                    f"{settings.num_kv_heads}."
                )
            if settings.query_dim % 2:
                raise ConfigError(
                    f"Heads of attention have {settings.query_dim} numbers; rotary positions need an even count."
                )

    @property
    def stack(self) -> str:
        """The stack written out, one letter a layer."""
        return parse_stack(self.mixers)

    def mixer_settings(self) -> MixerSettings:
        """The part of the configuration that sizes the mixers."""
        return MixerSettings(
            hidden_size=self.hidden_size,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,  # type: ignore[arg-type]
            head_dim=self.head_dim,  # type: ignore[arg-type]
            expand_v=self.expand_v,
            conv_size=self.conv_size,
            allow_neg_eigval=self.allow_neg_eigval,
            use_output_gate=self.use_output_gate,
            window=self.window,
            rope_theta=self.rope_theta,
            attn_num_heads=self.attn_num_heads,
            attn_head_dim=self._attn_head_dim,
            qkv_bias=self.qkv_bias,
            norm_eps=self.norm_eps,
        )

    @property
    def _attn_head_dim(self) -> int | None:
        # Not filled in like other sizes: a config without the field must stay equal to one that never had it.
        if self.attn_num_heads and not self.attn_head_dim:
            return self.hidden_size // self.attn_num_heads
        return self.attn_head_dim

    @property
    def num_params(self) -> int:
        """Parameters of the model with its language-model head; tied embeddings count once."""
        settings = self.mixer_settings()
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        mixers = sum(MIXERS[letter].count_params(settings) for letter in self.stack)
        mlp_and_norms = 3 * self.hidden_size * self._mlp_width + 2 * self.hidden_size
        return embeddings + mixers + len(self.stack) * mlp_and_norms + self.hidden_size

    def flops_per_token(self, num_tokens: int) -> float:
        """Forward floating-point operations a token, mean over a sequence of `num_tokens`.

        A training step is about three times that. Counted: matrix products,
        convolutions, token mixing, the head; left out: norms and activations.
        """
        settings = self.mixer_settings()
        mixers = sum(MIXERS[letter].count_flops_per_token(settings, num_tokens) for letter in self.stack)
        mlp = len(self.stack) * 6 * self.hidden_size * self._mlp_width
        return mixers + mlp + 2 * self.hidden_size * self.vocab_size

    def state_bytes(self, num_tokens: int, dtype: torch.dtype = torch.float32) -> int:
        """Bytes that a sequence of `num_tokens` leaves in the cache, in activations of `dtype`."""
        settings = self.mixer_settings()
        return sum(MIXERS[letter].count_state_bytes(settings, num_tokens, dtype) for letter in self.stack)

    @property
    def _mlp_width(self) -> int:
        assert self.intermediate_size is not None, "__post_init__ fills intermediate_size"
        return self.intermediate_size


def _register_models() -> None:
    # Lazy on purpose: longlode's import hook imports this module when transformers' modeling modules may be
    # half imported, so it must not need them. Whoever holds a config may want its model: this is the moment.
    from longlode.models import lm

    lm.register()
