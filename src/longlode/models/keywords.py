"""Keywords of `forward` that transformers, PEFT and TRL pass: used, ignored, or refused.

Only keywords that cannot change the result are ignored. A keyword that is None or False has no effect.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast

from longlode.core.errors import ConfigError
from longlode.mixers import SequenceShard

CACHE_KEYWORD = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"
"""Name of the cache in the installed transformers, as an argument and as an output; version 5.24 changed it."""

_CACHE_NAMES = ("cache", "past_key_values")


class SharedOptions(TypedDict, total=False):
    """Keywords of both models' `forward` that are not in the signatures.

    They are not parameters, because `generate` makes `position_ids` for every token it writes if it finds such a
    parameter.
    """

    cache: Any
    position_ids: Tensor | None
    output_attentions: bool | None
    cu_seq_lens_q: Tensor | None
    cu_seq_lens_k: Tensor | None
    max_length_q: int | None
    max_length_k: int | None
    seq_idx: Tensor | None
    cache_position: Tensor | None
    token_type_ids: Tensor | None
    is_causal: bool | None
    tokenizer: Any
    shard: SequenceShard | None
    """This rank's part of a sequence that lies on several (`longlode.parallel.RankShard`)."""


class BackboneOptions(SharedOptions, total=False):
    """Keywords of `LonglodeModel.forward`."""

    prefix_lengths: Tensor | None


class HeadOptions(SharedOptions, total=False):
    """Keywords of `LonglodeForCausalLM.forward`; prefix_lengths is in its signature, where `generate` finds it.

    transformers' Trainer treats every parameter whose name contains "label" as a column of the data, and then
    finds no loss in an evaluation; so shift_labels is not a parameter either.
    """

    shift_labels: Tensor | None
    num_items_in_batch: Tensor | int | None
    label_weights: Tensor | None
    """`[B, T]`, weight of each of shift_labels in the summed loss; None: 1."""
    label_places: Tensor | None
    """int64 `[n]`, where shift_labels has labels, in the flattened `[B * T]`; None: found by asking the device."""
    adds_aux_loss: bool
    """True (the default): the loss in training includes the mixers' auxiliary losses."""


# Ignored, because the model counts positions itself; it has one type of token; the flash keywords for keys repeat those
# for queries; items are counted with the loss; `generate` passes on the tokenizer given for its own stop strings.
_UNREAD = frozenset(
    {
        "num_items_in_batch",
        "cu_seq_lens_k",
        "max_length_q",
        "max_length_k",
        "cache_position",
        "token_type_ids",
        "tokenizer",
    }
)
_READ = frozenset(
    {"position_ids", "output_attentions", "cu_seq_lens_q", "seq_idx", "prefix_lengths", "shard"}
)


def label_options(options: HeadOptions) -> tuple[Tensor | None, Tensor | None, bool]:
    """Take label_weights, label_places and adds_aux_loss out of the options.

    Of a part of a sequence the second is None: they are places in whole rows.
    """
    places = options.pop("label_places", None)
    places = None if options.get("shard") is not None else places
    return options.pop("label_weights", None), places, options.pop("adds_aux_loss", True)


def honoured(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the backbone uses, by name, without the cache (`given_cache`).

    Raises: ConfigError on a known one that would change the result; TypeError on an unknown one.
    """
    read = {}
    for name, value in options.items():
        if name in _READ:
            read[name] = value
        elif (
            name in _CACHE_NAMES
            or name in _UNREAD
            or value is None
            or value is False
            or (name == "is_causal" and value is True)
        ):
            continue
        elif name in ("head_mask", "encoder_hidden_states", "encoder_attention_mask", "output_router_logits"):
            raise ConfigError(f"{name} was given; a longlode model has no place for it. Leave it out.")
        else:
            raise TypeError(f"forward() of a longlode model got an unexpected keyword argument {name!r}")
    if options.get("is_causal") is False:
        raise ConfigError(
            "is_causal is False; a longlode model reads from left to right. Leave is_causal out."
        )
    return read


def given_cache(past_key_values: Any, options: Mapping[str, Any]) -> Any:
    """Return the cache, given under either of its names. Raises: ConfigError if both are given and differ."""
    cache = options.get("cache")
    if cache is not None and past_key_values is not None and cache is not past_key_values:
        raise ConfigError(
            "cache and past_key_values were both given; they are names of one thing. Pass one of them."
        )
    return past_key_values if cache is None else cache


def with_cache_renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options` with the cache under the installed transformers' name."""
    renamed = {name: value for name, value in options.items() if name not in _CACHE_NAMES}
    if any(name in options for name in _CACHE_NAMES):
        renamed[CACHE_KEYWORD] = given_cache(options.get("past_key_values"), options)
    return renamed
