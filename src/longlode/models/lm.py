"""The one backbone: embeddings, a stack of (mixer, SwiGLU) blocks, a head. Which mixers stand in it is data.

    x = embed(tokens);   x = x + mixer(RMSNorm(x));   x = x + SwiGLU(RMSNorm(x));   logits = head(RMSNorm(x))

Parameters carry the names of fla's `delta_net` checkpoints.
"""

from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from longlode.core.errors import ConfigError
from longlode.mixers import MIXERS, Mixer, RMSNorm
from longlode.mixers.short_conv import ShortConv
from longlode.models.cache import LayerMemory, LonglodeCache
from longlode.models.config import LonglodeConfig
from longlode.models.loss import IGNORED, next_token_loss


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        """Three matrices, no biases."""
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """X `[..., D]` -> `[..., D]`."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class LonglodeBlock(GradientCheckpointingLayer):
    """A mixer and a SwiGLU, each after an RMSNorm and around a residual."""

    def __init__(self, config: LonglodeConfig, letter: str, layer_idx: int) -> None:
        """Block `layer_idx` of the stack, with the mixer that `letter` names."""
        super().__init__()
        self.layer_idx = layer_idx
        self.attn_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attn: Mixer = MIXERS[letter](config.mixer_settings())
        self.mlp_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)  # type: ignore[arg-type]

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        past_key_values: LonglodeCache | None = None,
    ) -> Tensor:
        """Renew the residual stream `[B, T, D]`, and this layer's memory in the cache."""
        memory = past_key_values.layers[self.layer_idx] if past_key_values is not None else LayerMemory()
        mixed, state = self.attn(self.attn_norm(hidden_states), memory.state, cu_seqlens, mask)
        memory.state = state
        hidden_states = hidden_states + mixed
        return hidden_states + self.mlp(self.mlp_norm(hidden_states))


class LonglodePreTrainedModel(PreTrainedModel):
    """What both model classes share: how to initialise, and what transformers may assume."""

    config: LonglodeConfig
    config_class = LonglodeConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["LonglodeBlock"]  # noqa: RUF012 - these attributes are transformers' own
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _keep_in_fp32_modules_strict = ["A_log", "dt_bias"]  # noqa: RUF012
    _supports_sdpa = True
    _is_stateful = True

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ShortConv):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
        if isinstance(module, Mixer):
            for name, value in module.initial_values().items():
                init.copy_(getattr(module, name), value)


class LonglodeModel(LonglodePreTrainedModel):
    """The backbone without a head."""

    def __init__(self, config: LonglodeConfig) -> None:
        """Build and initialise the blocks that `config` describes."""
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LonglodeBlock(config, letter, i) for i, letter in enumerate(config.stack))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding."""
        return self.embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self.embeddings = value  # type: ignore[assignment]

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: LonglodeCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> BaseModelOutputWithPast:
        """Read tokens, going on from `past_key_values`.

        Args:
          input_ids: int64 `[B, T]`; or else inputs_embeds `[B, T, D]`.
          attention_mask: `[B, T]`, or `[B, past + T]` as `generate` passes it; 0 at padding.
          past_key_values: a LonglodeCache, renewed in place.
          use_cache: make a cache and return it (default: the config's use_cache, never while training).
          output_hidden_states: also return the residual stream before each block and the final hidden states.
          cu_seqlens: `[N + 1]` offsets of documents packed in one row (B = 1); nothing passes between them.
        Returns: last_hidden_state `[B, T, D]` after the final norm, past_key_values, hidden_states.
        Raises: ConfigError on inputs that contradict each other.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ConfigError(
                "The model got both or neither of input_ids and inputs_embeds; pass exactly one."
            )
        hidden_states = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training and cu_seqlens is None
        cache = _usable_cache(past_key_values, len(self.layers), use_cache, cu_seqlens)
        if cu_seqlens is not None and hidden_states.shape[0] != 1:
            raise ConfigError(
                f"cu_seqlens came with a batch of {hidden_states.shape[0]} rows; pack documents into one row."
            )
        mask = _padding_mask(attention_mask, hidden_states.shape[:2])
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        streams = []
        for block in self.layers:
            if output_hidden_states:
                streams.append(hidden_states)
            hidden_states = block(hidden_states, mask, cu_seqlens, past_key_values=cache)
        hidden_states = self.norm(hidden_states)
        if cache is not None:
            cache.num_positions += hidden_states.shape[1]
        return BaseModelOutputWithPast(
            last_hidden_state=hidden_states,
            past_key_values=cache,
            hidden_states=(*streams, hidden_states) if output_hidden_states else None,
        )


class LossOptions(TypedDict, total=False):
    """What else the loss may be told.

    Keywords of their own in `LonglodeForCausalLM.forward` would not do: transformers' Trainer takes every parameter
    whose name has "label" in it for a column of the data, and then finds no loss in an evaluation.
    """

    shift_labels: Tensor | None
    num_items_in_batch: Tensor | int | None


class LonglodeForCausalLM(LonglodePreTrainedModel, GenerationMixin):
    """The language model: backbone and head. `generate`, `save_pretrained` and the rest are transformers'."""

    _tied_weights_keys = {"lm_head.weight": "model.embeddings.weight"}  # noqa: RUF012
    accepts_loss_kwargs = True

    def __init__(self, config: LonglodeConfig) -> None:
        """Build and initialise the model that `config` describes."""
        super().__init__(config)
        self.model = LonglodeModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        # transformers' own cache has no place for three convolutions and a memory.
        return False

    def _prepare_cache_for_generation(  # type: ignore[override]
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *sizes: Any
    ) -> None:
        """Give `generate` our cache from the start; prefill in chunks wants one before the first forward."""
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *sizes)  # type: ignore[misc]
        if generation_config.use_cache is not False and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = LonglodeCache(len(self.model.layers))

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: LonglodeCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        cu_seqlens: Tensor | None = None,
        **options: Unpack[LossOptions],
    ) -> CausalLMOutputWithPast:
        """Predict the next token at each position; what is not named here is as in `LonglodeModel.forward`.

        Args:
          labels: int64 `[B, T]`, the tokens themselves, -100 where nothing is asked; shifted here as
            transformers does. With cu_seqlens no document is asked for the first token of the next.
          shift_labels: instead of labels: `[B, T]`, what should follow each position (see `core.batch`).
          logits_to_keep: compute only the last n positions' logits (0: all), or those of the given positions.
          num_items_in_batch: divide the summed loss by this instead of the number of labels.
        Returns: logits `[B, kept, V]`; while training with labels they are None, since the loss is
          taken block by block and never holds them; loss, the mean in nats, when labels are given.
        """
        if unknown := set(options) - LossOptions.__optional_keys__:
            raise TypeError(
                f"LonglodeForCausalLM.forward() got an unexpected keyword argument {min(unknown)!r}"
            )
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            cu_seqlens=cu_seqlens,
        )
        hidden = outputs.last_hidden_state
        shift_labels = options.get("shift_labels")
        if labels is not None:
            if shift_labels is not None:
                raise ConfigError("The model got both labels and shift_labels; pass one of them.")
            shift_labels = _shift(labels, cu_seqlens)
        loss = None
        if shift_labels is not None:
            targets, num_items = shift_labels.to(hidden.device), options.get("num_items_in_batch")
            loss = next_token_loss(hidden, self.lm_head.weight, targets, num_items)
        logits = None
        if loss is None or not self.training:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(hidden[:, kept])
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
        )


def _shift(labels: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """What should follow each position: labels one to the left, nothing across the end of a document."""
    shifted = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    if cu_seqlens is not None:
        shifted[:, cu_seqlens[1:].long() - 1] = IGNORED
    return shifted


def _usable_cache(
    cache: Any, num_layers: int, use_cache: bool, cu_seqlens: Tensor | None
) -> LonglodeCache | None:
    if cache is None and not use_cache:
        return None
    if cu_seqlens is not None:
        raise ConfigError(
            "A cache and cu_seqlens do not go together; read packed documents with use_cache=False."
        )
    if cache is None:
        return LonglodeCache(num_layers)
    if not isinstance(cache, LonglodeCache):
        raise ConfigError(
            f"past_key_values is a {type(cache).__name__}; a longlode model needs a LonglodeCache "
            "(longlode.models.LonglodeCache(config.num_hidden_layers), or leave it out)."
        )
    if len(cache.layers) != num_layers:
        raise ConfigError(
            f"The cache has {len(cache.layers)} layers and the model {num_layers}; use one of this model."
        )
    return cache


def _padding_mask(attention_mask: Tensor | None, shape: torch.Size) -> Tensor | None:
    """The mask `[B, T]` of this piece, or None when nothing is padding."""
    if attention_mask is None:
        return None
    num_rows, num_tokens = shape
    if (
        attention_mask.dim() != 2
        or attention_mask.shape[0] != num_rows
        or attention_mask.shape[1] < num_tokens
    ):
        raise ConfigError(
            f"attention_mask has shape {list(attention_mask.shape)}; expected [{num_rows}, {num_tokens}] or "
            "longer (the past in front), 1 at tokens and 0 at padding."
        )
    mask = attention_mask[:, -num_tokens:].bool()
    return None if mask.all() else mask


def register() -> None:
    """Make the architecture known to transformers' Auto classes; harmless when done before."""
    AutoConfig.register(LonglodeConfig.model_type, LonglodeConfig, exist_ok=True)
    AutoModel.register(LonglodeConfig, LonglodeModel, exist_ok=True)
    AutoModelForCausalLM.register(LonglodeConfig, LonglodeForCausalLM, exist_ok=True)
