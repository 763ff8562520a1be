"""Prefix states of segments: kept after one pass, selected by row for the next, measured in bytes.

Works on the cache of any transformers model and of longlode's, independent of the kind of layer.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicLayer


@dataclass(frozen=True)
class SegmentStates:
    """Prefix states of the rows of one call of `LMReader.alone` or `continued`, in blocks; opaque to callers.

    starts: int64 `[num_blocks + 1]`; block b holds rows `starts[b]` to `starts[b + 1] - 1`.
    tokens: int64 `[n, T]` on the model's device, the text read so far, to read again a block that was not kept.
    caches: one per block; None where the state budget was used up.
    """

    starts: np.ndarray
    tokens: torch.Tensor
    caches: list[Any]

    @property
    def num_bytes(self) -> int:
        """Bytes held by the kept states."""
        return sum(cache_bytes(cache) for cache in self.caches if cache is not None)


class _GatheredLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer's stored keys and values, gathered for a batch of pairs when the layer runs and then dropped.

    Gathering all layers beforehand would hold num_layers times as much, and keeping the results double that.
    """

    def __init__(self, stored: DynamicLayer, rows: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stored, self.rows = stored, rows
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Join prefix and new keys and values; signature and layout are those of transformers."""
        return self._joined(self.stored.keys, key_states), self._joined(self.stored.values, value_states)

    def _joined(self, prefix: Any, new: torch.Tensor) -> torch.Tensor:
        """Join the chosen rows of `prefix [n, H, Tp, K]` and `new [r, H, T, K]` in one copy."""
        length = prefix.shape[-2]
        joined = new.new_empty(*new.shape[:-2], length + new.shape[-2], new.shape[-1])
        torch.index_select(prefix, 0, self.rows, out=joined[..., :length, :])
        joined[..., length:, :] = new
        return joined

    def get_seq_length(self) -> int:
        """Return the number of tokens of the prefix."""
        return self.stored.get_seq_length()


def select(cache: Any, rows: torch.Tensor, *, keep: bool = False) -> Any:
    """Make a cache of the states of `rows` (int64, repeats allowed) for one pass; `cache` is not changed.

    keep: the new cache must keep what the pass adds, for another pass to continue; it then owns a copy of the rows.
    """
    if hasattr(cache, "select"):
        return cache.select(rows)
    chosen = copy.copy(cache)
    chosen.layers = [_select_layer(layer, rows, keep) for layer in cache.layers]
    return chosen


def cache_bytes(cache: Any) -> int:
    """Count the bytes of all tensors that a cache holds; a shared tensor counts once."""
    sizes: dict[int, int] = {}
    stack = [cache]
    while stack:
        value = stack.pop()
        if isinstance(value, torch.Tensor):
            sizes[value.data_ptr()] = value.nbytes
        elif isinstance(value, (list, tuple)):
            stack.extend(value)
        elif isinstance(value, dict):
            stack.extend(value.values())
        elif value is not None and hasattr(value, "__dict__") and not isinstance(value, type):
            stack.extend(vars(value).values())
    return sum(sizes.values())


def _select_layer(layer: Any, rows: torch.Tensor, keep: bool) -> Any:
    if type(layer) is DynamicLayer and not keep:
        return _GatheredLayer(layer, rows)
    chosen = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(
            value, dict
        ):  # linear attention layers hold their states in dicts and change those in place
            setattr(chosen, name, dict(value))
    chosen.reorder_cache(rows)
    return chosen
