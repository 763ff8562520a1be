"""What transformers, PEFT and TRL pass to `forward` beside tokens: honoured, left unread, or refused.

Unread is only what cannot change the answer. A keyword that is None or False asks for nothing, whatever its name.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast

from longlode.core.errors import ConfigError

CACHE_KEYWORD = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"
"""The installed transformers' name of the cache, as an argument and as an output: 5.24 renamed it."""

_CACHE_NAMES = ("cache", "past_key_values")


class SharedOptions(TypedDict, total=False):
    """What both models' `forward` may be told by keyword, beside what their signatures name.

    Keywords of their own would not do: `generate` makes `position_ids` for every token it writes where it sees such a
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


class BackboneOptions(SharedOptions, total=False):
    """What `LonglodeModel.forward` may be told."""

    prefix_lengths: Tensor | None


class HeadOptions(SharedOptions, total=False):
    """What `LonglodeForCausalLM.forward` may be told; its signature names prefix_lengths, for `generate` to know it.

    transformers' Trainer takes every parameter whose name has "label" in it for a column of the data, and then finds
    no loss in an evaluation; so shift_labels is no parameter either.
    """

    shift_labels: Tensor | None
    num_items_in_batch: Tensor | int | None
    label_weights: Tensor | None
    """`[B, T]`, what each of shift_labels counts in the summed loss; None: 1."""
    adds_aux_loss: bool
    """Whether the loss includes the mixers' auxiliary losses while training (default: it does)."""


# The model counts positions itself; it has one type of token; the flash keywords for keys say what those for queries
# say; items are counted where the loss is; `generate` passes on the tokenizer that it got for its own stop strings.
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
_READ = frozenset({"position_ids", "output_attentions", "cu_seq_lens_q", "seq_idx", "prefix_lengths"})


def honoured(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the backbone acts on, by name; the cache apart (`given_cache`).

    Raises: ConfigError on one that is known and would change the answer; TypeError on one that nobody knows.
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
    """The cache under either of its names. Raises ConfigError when it came under both and they differ."""
    cache = options.get("cache")
    if cache is not None and past_key_values is not None and cache is not past_key_values:
        raise ConfigError(
            "cache and past_key_values were both given; they are names of one thing. Pass one of them."
        )
    return past_key_values if cache is None else cache


def with_cache_renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with the cache under the installed transformers' name for it."""
    renamed = {name: value for name, value in options.items() if name not in _CACHE_NAMES}
    if any(name in options for name in _CACHE_NAMES):
        renamed[CACHE_KEYWORD] = given_cache(options.get("past_key_values"), options)
    return renamed
