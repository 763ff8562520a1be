"""The backbone and the language model: embeddings, a stack of (mixer, SwiGLU) blocks, a head.

    x = embed(tokens);   x = x + mixer(RMSNorm(x));   x = x + SwiGLU(RMSNorm(x));   logits = head(RMSNorm(x))

Parameters carry the names of fla's `delta_net` checkpoints.
"""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from longlode.core.errors import ConfigError
from longlode.mixers import Mixer, RMSNorm, SequenceContext, SequenceShard
from longlode.mixers.short_conv import ShortConv
from longlode.models.block import LonglodeBlock, SideOutputs
from longlode.models.cache import LonglodeCache, check_rows, checked_cache
from longlode.models.card import write_card
from longlode.models.config import LonglodeConfig
from longlode.models.inputs import (
    embedded,
    packed_documents,
    piece_mask,
    real_first,
    reordered,
    restored,
    restored_weights,
)
from longlode.models.keywords import (
    CACHE_KEYWORD,
    BackboneOptions,
    HeadOptions,
    given_cache,
    honoured,
    label_options,
    with_cache_renamed,
)
from longlode.models.loss import IGNORED, next_token_loss
from longlode.models.rewind import Part
from longlode.models.sharded import check_sharded, check_sharded_loss


@dataclass
class LonglodeOutput(BaseModelOutputWithPast):
    """Output of the backbone: transformers' fields, offsets of packed documents, side outputs of mixers.

    aux_loss: sum of the mixers' auxiliary losses, a scalar; None when there are none. metrics: their metrics, by
    "layer_N.name". attentions: weights `[B, heads, T, keys]` per layer, None for layers that have none.
    """

    cu_seqlens: Tensor | None = None
    aux_loss: Tensor | None = None
    metrics: dict[str, Tensor] | None = None


@dataclass
class LonglodeCausalOutput(CausalLMOutputWithPast):
    """Output of the language model: transformers' fields; aux_loss and metrics as in `LonglodeOutput`."""

    aux_loss: Tensor | None = None
    metrics: dict[str, Tensor] | None = None


@dataclass
class _Reading:
    """Options of a forward pass, and the side outputs of its mixers."""

    sides: SideOutputs  # made by the caller: torch.export cannot trace a default factory
    cu_seqlens: Tensor | None = None
    cache: LonglodeCache | None = None
    prefix_lengths: Tensor | None = None
    keeps_streams: bool = False
    wants_weights: bool = False
    shard: SequenceShard | None = None

    def check(self) -> None:
        """Check the options of packed documents with a cache. Raises: ConfigError."""
        if self.cache is None or self.cu_seqlens is None:
            return
        if self.wants_weights:
            raise ConfigError(
                "output_attentions was asked of packed documents with a cache; leave out one of the three."
            )
        if self.cache.rewind.recording:
            raise ConfigError(
                "The cache records, to be cut back, and was given packed documents; read them with another cache, or "
                "one per row."
            )


class LonglodePreTrainedModel(PreTrainedModel):
    """Base of both model classes: initialisation, and attributes for transformers."""

    config: LonglodeConfig
    config_class = LonglodeConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    model_tags = ["longlode"]  # noqa: RUF012
    _no_split_modules = ["LonglodeBlock"]  # noqa: RUF012 - these attributes are transformers' own
    _skip_keys_device_placement = ["cache", "past_key_values"]  # noqa: RUF012
    _supports_sdpa = True

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, **options: Any
    ) -> None:
        """Save as transformers does, with a model card (see `card.py`)."""
        super().save_pretrained(save_directory, is_main_process, **options)
        if is_main_process and (Path(save_directory) / "config.json").is_file():
            write_card(Path(save_directory), self.config, type(self).__name__, self.num_parameters())

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ShortConv):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
        if isinstance(module, Mixer):
            for name, value in module.initial_values().items():
                init.copy_(module.get_parameter(name), value)


class LonglodeModel(LonglodePreTrainedModel):
    """The backbone without a head."""

    def __init__(self, config: LonglodeConfig) -> None:
        """Build and initialise the blocks that `config` describes."""
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            LonglodeBlock(config, layer, i) for i, layer in enumerate(config.layer_configs)
        )
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.gradient_checkpointing = False
        # Of this stack's mixers; models around this one copy it in their own post_init.
        kept = {name for block in self.layers for name in block.attn.float32_parameters}  # type: ignore[union-attr]
        self._keep_in_fp32_modules_strict = kept
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
        **options: Unpack[BackboneOptions],
    ) -> LonglodeOutput:
        """Read tokens, continuing from `past_key_values`.

        Args:
          input_ids: int64 `[B, T]`; or else inputs_embeds `[B, T, D]`.
          attention_mask: `[B, T]`, or `[B, past + T]` as `generate` passes it; 0 at padding, anywhere in a row.
          past_key_values: a LonglodeCache, updated in place; also as `cache`, its name since transformers 5.24. It has
            one row per packed document.
          use_cache: make a cache and return it (default: the config's use_cache, never while training or packed).
          output_hidden_states: also return the residual stream before each block and the final hidden states.
          cu_seqlens: `[N + 1]` offsets of documents packed in one row (B = 1); nothing passes between them.
          position_ids: `[B, T]`; the model counts itself, so these must agree, or restart in one row, with the
            meaning of cu_seqlens. seq_idx `[1, T]`, a number per document, has it too.
          cu_seq_lens_q: flash attention's name for cu_seqlens, as transformers' collators write it.
          prefix_lengths: int64 `[B]`, or `[N]` of packed documents: number of first tokens of each that mixers with a
            prefix read in both directions.
          output_attentions: also return the attention weights, `[B, heads, T, keys]`, None for layers without.
          shard: part of a sequence on several ranks (`longlode.parallel`), of which the other arguments are.
        Other keywords of transformers are in `keywords.py`.
        Returns: last_hidden_state `[B, T, D]` after the final norm, the cache, and other fields of `LonglodeOutput`.
        Raises: ConfigError on inputs that contradict each other or are not supported.
        """
        read = honoured(options)
        hidden_states = self._embedded(input_ids, inputs_embeds)
        shape = hidden_states.shape[:2]
        self._refuse_symbolic_length(shape[1])
        cache = self._cache(given_cache(past_key_values, options))
        mask, cu_seqlens = _mask_and_documents(shape, attention_mask, cu_seqlens, read, cache)
        reading = _Reading(
            sides=SideOutputs(),
            cu_seqlens=cu_seqlens,
            cache=self._cache_to_fill(cache, use_cache, cu_seqlens),
            prefix_lengths=_left_of_prefix(read.get("prefix_lengths"), cache),
            keeps_streams=self._asks("output_hidden_states", output_hidden_states),
            wants_weights=self._asks("output_attentions", read.get("output_attentions")),
            shard=read.get("shard"),
        )
        reading.check()
        check_sharded(reading.shard, self.layers, mask, reading.cache)
        streams = self._read(Part(hidden_states, mask, input_ids), reading)
        sides = reading.sides
        return LonglodeOutput(
            last_hidden_state=streams[-1],
            hidden_states=tuple(streams) if reading.keeps_streams else None,
            attentions=tuple(sides.weights) if reading.wants_weights else None,  # type: ignore[arg-type]
            cu_seqlens=cu_seqlens,
            aux_loss=sides.aux_loss,
            metrics=sides.metrics or None,
            **{CACHE_KEYWORD: reading.cache},  # type: ignore[arg-type]
        )

    def catch_up(self, cache: LonglodeCache) -> None:
        """Read again the tokens left by a crop, so that the states match the cache's position."""
        for part in cache.take_pending():
            self._run_blocks(part, _Reading(SideOutputs(), cache=cache))

    def _read(self, piece: Part, reading: "_Reading") -> list[Tensor]:
        """Read a piece, in the parts that the cache requires, and count it; return as `_run_blocks`."""
        cache = reading.cache
        if cache is None:
            return self._run_blocks(piece, reading)
        self.catch_up(cache)
        whole = reading.wants_weights or reading.prefix_lengths is not None
        pieces = []
        for part in [piece] if whole else cache.parts(piece):
            cache.note(part)
            pieces.append(self._run_blocks(part, reading))
            if reading.cu_seqlens is None:
                cache.count(part.inputs.shape[1], part.mask)
            else:
                cache.count_documents(reading.cu_seqlens)
        return pieces[0] if len(pieces) == 1 else [torch.cat(s, dim=1) for s in zip(*pieces, strict=True)]

    def _run_blocks(self, part: Part, reading: "_Reading") -> list[Tensor]:
        """Run the blocks; return the residual stream before each (if requested) and the final states, `[B, T, D]`."""
        order, mask = real_first(part.mask)
        token_ids = (
            part.token_ids if part.token_ids is None or order is None else part.token_ids.gather(1, order)
        )
        hidden_states, streams = reordered(part.inputs, order), []
        context = SequenceContext.of(
            hidden_states,
            cu_seqlens=reading.cu_seqlens,
            mask=mask,
            token_ids=token_ids,
            prefix_lengths=reading.prefix_lengths,
            keeps_state=reading.cache is not None,
            wants_weights=reading.wants_weights,
            shard=reading.shard,
        )
        reading.sides = sides = SideOutputs()
        for block in self.layers:
            if reading.keeps_streams:
                streams.append(restored(hidden_states, order))
            hidden_states = sides.take(block, block(hidden_states, context, cache=reading.cache))  # type: ignore[arg-type]
        sides.weights = [restored_weights(weights, order) for weights in sides.weights]
        return [*streams, restored(self.norm(hidden_states), order)]

    @property
    def _checkpoints(self) -> bool:
        """Return True if blocks will run a second time in backward, where they must not find an updated cache."""
        return (
            self.training
            and torch.is_grad_enabled()
            and any(block.gradient_checkpointing for block in self.layers)
        )

    def _asks(self, name: str, given: bool | None) -> bool:
        return bool(getattr(self.config, name) if given is None else given)

    def _cache(self, cache: Any) -> LonglodeCache | None:
        """Check the given cache and return it."""
        if cache is not None and self._checkpoints:
            raise ConfigError(
                "A cache was given while gradient checkpointing is on, which reads twice; leave it out."
            )
        return checked_cache(cache, len(self.layers))

    def _cache_to_fill(
        self, cache: LonglodeCache | None, use_cache: bool | None, cu_seqlens: Tensor | None
    ) -> LonglodeCache | None:
        """Return the given cache, or a new one if requested (for packed documents never by default)."""
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training and cu_seqlens is None
        return (
            LonglodeCache(len(self.layers))
            if cache is None and use_cache and not self._checkpoints
            else cache
        )

    def _refuse_symbolic_length(self, num_tokens: Any) -> None:
        if not (torch.compiler.is_exporting() and isinstance(num_tokens, torch.SymInt)):
            return
        if not all(block.attn.traits.exports_any_length for block in self.layers):  # type: ignore[union-attr]
            raise ConfigError(
                "torch.export got a dynamic length; a longlode model exports for one length, since the ops lay out "
                "their chunks and blocks by it (only stacks of A layers do not). Leave the length out of "
                "dynamic_shapes, and export once per length or pad with attention_mask."
            )

    def _embedded(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise ConfigError(
                "The model got both or neither of input_ids and inputs_embeds; pass exactly one."
            )
        return inputs_embeds if input_ids is None else embedded(self.embeddings, input_ids)  # type: ignore[return-value]


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
        # transformers' own cache cannot hold three convolutions and a memory.
        return False

    def _prepare_cache_for_generation(  # type: ignore[override]
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *sizes: Any
    ) -> None:
        """Give `generate` a LonglodeCache from the start; prefill in chunks needs it before the first forward."""
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *sizes)  # type: ignore[misc]
        cache, mask = model_kwargs.get(CACHE_KEYWORD), model_kwargs.get("attention_mask")
        # transformers leaves out a mask without padding, and stores its length instead.
        length = mask.shape[1] if mask is not None else getattr(generation_config, "_mask_length", None)
        if cache is not None and length is not None and cache.get_seq_length() >= length:
            raise ConfigError(
                f"The cache has read {cache.get_seq_length()} positions, and the text that `generate` got has "
                f"{length} in all; expected more. Pass the whole text, or its new part together with an "
                "attention_mask that covers the part read before too."
            )
        if generation_config.use_cache is not False and cache is None:
            model_kwargs[CACHE_KEYWORD] = LonglodeCache(len(self.model.layers))
            if generation_config.is_assistant:
                # It drafts token by token, and is cropped to the tokens that the other model accepted.
                model_kwargs[CACHE_KEYWORD].activate_past_recording()

    @functools.wraps(GenerationMixin.generate)
    def generate(self, *inputs: Any, **options: Any) -> Any:  # noqa: D102 - wrapped
        return super().generate(*inputs, **with_cache_renamed(options))

    def flops_per_token(self, num_tokens: int) -> float:
        """Compute forward floating-point operations per token, mean over a sequence; see `LonglodeConfig`."""
        mixers = [module for module in self.modules() if isinstance(module, Mixer)]
        inside = {id(part) for mixer in mixers for part in mixer.modules()}
        dense = [m for m in self.modules() if isinstance(m, nn.Linear) and id(m) not in inside]
        others = sum(2 * module.weight.numel() for module in dense)
        return others + sum(mixer.flops_per_token(num_tokens) for mixer in mixers)

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
        prefix_lengths: Tensor | None = None,
        **options: Unpack[HeadOptions],
    ) -> LonglodeCausalOutput:
        """Predict the next token at each position; other arguments are those of `LonglodeModel.forward`.

        Args:
          labels: int64 `[B, T]`, the tokens themselves, -100 for no label; shifted here as in transformers, each
            document of cu_seqlens by itself.
          shift_labels: `[B, T]`, the token that should follow each position (see `core.batch`); used instead of labels.
          logits_to_keep: compute only the last n positions' logits (0: all), or those of the given positions.
          num_items_in_batch: divide the summed loss by this instead of the number of labels. Others: `HeadOptions`.
        Returns: logits `[B, kept, V]`, None while training with labels, since the loss is computed block by block
          without them; loss, the mean in nats, when labels are given; in training with the mixers' auxiliary losses.
        """
        shift_labels, num_items = options.pop("shift_labels", None), options.pop("num_items_in_batch", None)
        importance, places, adds_aux_loss = label_options(options)
        check_sharded_loss(options.get("shard"), labels, shift_labels, num_items)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            cu_seqlens=cu_seqlens,
            prefix_lengths=prefix_lengths,
            **options,
        )
        hidden = outputs.last_hidden_state
        if labels is not None and shift_labels is None:
            shift_labels = _shift(labels, outputs.cu_seqlens)
        loss = logits = None
        if shift_labels is not None:
            targets = shift_labels.to(hidden.device)
            loss = next_token_loss(hidden, self.lm_head, targets, num_items, importance, places)
            if outputs.aux_loss is not None and self.training and adds_aux_loss:
                loss = loss + _label_share(targets, num_items).to(loss.dtype) * outputs.aux_loss
        if loss is None or not self.training:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(hidden[:, kept])
        return LonglodeCausalOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            aux_loss=outputs.aux_loss,
            metrics=outputs.metrics,
            **{CACHE_KEYWORD: outputs.get(CACHE_KEYWORD)},
        )


def _label_share(targets: Tensor, num_items: Tensor | int | None) -> Tensor:
    """Return the share of these targets in the divisor of the loss, float64, which weights the auxiliary loss."""
    own = (targets != IGNORED).sum().double()
    return torch.ones_like(own) if num_items is None else own / num_items


def _shift(labels: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """Shift labels one to the left, without labels across the end of a document."""
    shifted = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    if cu_seqlens is not None:
        shifted[:, cu_seqlens[1:].long() - 1] = IGNORED
    return shifted


def _mask_and_documents(
    shape: torch.Size,
    attention_mask: Tensor | None,
    cu_seqlens: Tensor | None,
    read: dict[str, Any],
    cache: LonglodeCache | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the padding mask `[B, T]` and offsets `[N + 1]` of a piece, or None, checked against the cache."""
    given, numbers = read.get("cu_seq_lens_q") if cu_seqlens is None else cu_seqlens, read.get("seq_idx")
    if given is None and numbers is None:
        # Otherwise the row may prove to be packed, and the number of states is known only below.
        check_rows(cache, shape[0])
    mask = piece_mask(attention_mask, shape, cache)
    found = packed_documents(read.get("position_ids"), given, mask, shape, cache, numbers)
    check_rows(cache, shape[0] if found is None else len(found) - 1)
    return mask, found


def _left_of_prefix(prefix_lengths: Tensor | None, cache: LonglodeCache | None) -> Tensor | None:
    """Return the tokens of each row's prefix that are still to be read; None when there are none."""
    if prefix_lengths is None or cache is None or not cache.num_positions:
        return prefix_lengths
    num_read = cache.num_positions - cache.num_padding(len(prefix_lengths)).to(prefix_lengths.device)
    if (prefix_lengths > num_read).any():
        raise ConfigError(
            f"prefix_lengths is {prefix_lengths.tolist()}, of which the cache has read {num_read.tolist()}; a prefix "
            "must be read in one piece. Read it anew, or leave prefix_lengths out."
        )
    return None


def register() -> None:
    """Register the architecture with transformers' Auto classes; may be called repeatedly."""
    AutoConfig.register(LonglodeConfig.model_type, LonglodeConfig, exist_ok=True)
    AutoModel.register(LonglodeConfig, LonglodeModel, exist_ok=True)
    AutoModelForCausalLM.register(LonglodeConfig, LonglodeForCausalLM, exist_ok=True)
    from longlode.models import heads

    AutoModelForSequenceClassification.register(
        LonglodeConfig, heads.LonglodeForSequenceClassification, exist_ok=True
    )
    AutoModelForTokenClassification.register(
        LonglodeConfig, heads.LonglodeForTokenClassification, exist_ok=True
    )
