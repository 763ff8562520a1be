"""Checks of a model that reads a part of a sequence on several ranks (`longlode.parallel`)."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from longlode.core.errors import ConfigError
from longlode.mixers import SequenceShard
from longlode.models.cache import LonglodeCache


def check_sharded(
    shard: SequenceShard | None,
    layers: Iterable[Any],
    mask: Tensor | None,
    cache: LonglodeCache | None,
) -> None:
    """Check that all layers can read a part of a sequence, with these options. Raises: ConfigError."""
    if shard is None or shard.num_ranks == 1:
        return
    refused = sorted({type(block.attn).__name__ for block in layers if block.attn.traits.shards is None})
    if refused:
        raise ConfigError(
            f"The model has layers of {', '.join(refused)}, which cannot read a sequence that lies on several ranks "
            "(traits.shards); expected mixers with a map of a piece or with keys and values to gather. Give each rank "
            "whole sequences instead (sequence = 1)."
        )
    if cache is not None and cache.num_positions and mask is not None:
        raise ConfigError(
            "A filled cache came with a padded piece of a sequence on several ranks; expected rows of equal length. "
            "Read the rows one by one, or from the beginning."
        )


def check_sharded_loss(
    shard: SequenceShard | None, labels: Tensor | None, shift_labels: Tensor | None, num_items: Any
) -> None:
    """Check that a part's loss is its share of the whole. Raises: ConfigError."""
    if shard is None or shard.num_ranks == 1:
        return
    if labels is not None and shift_labels is None:
        raise ConfigError(
            "labels came with a sequence on several ranks; expected shift_labels, since the label of a piece's last "
            "token is on the next rank (longlode.parallel.next_tokens)."
        )
    if shift_labels is not None and num_items is None:
        raise ConfigError(
            "shift_labels came without num_items_in_batch; expected the number of labels on all ranks, so that the "
            "ranks' losses add up to the whole."
        )
