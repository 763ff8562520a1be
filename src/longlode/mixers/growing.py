"""States that grow by a few tokens at a time: `append` without copying what is already kept.

`torch.cat` copies all keys and values of a text for every token that is written after it. Here the kept tokens lie at
the beginning of a larger buffer, and new ones are written behind them. A state is never changed: the buffer knows how
many of its tokens are in use, and a second continuation of the same state, which finds that place taken, gets a copy.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from longlode.ops.surroundings import Interface, required_interface

_ROOM = "_longlode_room"
_GROWTH = 4
"""A full buffer grows by one part in so many: its free memory stays below a quarter, copies of a token below five."""
_LEAST_ROOM = 64
_CLAIMS = threading.Lock()
"""Two threads may continue one state, e.g. a prompt's, at the same time."""


@dataclass
class _Room:
    """The memory that a state is the beginning of."""

    buffer: Tensor
    """`[N, capacity, ...]`"""
    used: int
    """Tokens of the buffer that belong to the longest state in it."""

    def __reduce__(self) -> tuple[type[OrderedDict[str, None]], tuple[()]]:
        """Leave the memory behind in copies and pickles, whose tensors have storage of their own.

        An empty mapping stands there, since torch.load makes no other objects in its safe mode (`weights_only`).
        """
        return OrderedDict, ()

    def claim(self, kept: Tensor, total: int) -> bool:
        """Take the places after `kept` up to `total - 1`, if it is the longest state here and they exist."""
        writable = torch.is_inference_mode_enabled() or not self.buffer.is_inference()
        # A tensor that was given other data (`.data = ...`, `set_`) keeps its attributes.
        here = kept.data_ptr() == self.buffer.data_ptr()
        with _CLAIMS:
            free = self.used == kept.shape[1] and total <= self.buffer.shape[1] and writable and here
            if free:
                self.used = total
        return free


def append(kept: Tensor, new: Tensor) -> Tensor:
    """Join `kept` `[N, J, ...]` and `new` `[N, T, ...]` along the tokens, as `torch.cat`; neither is changed.

    Without gradients the result is a view of a buffer that later calls append to in place: O(T) per call, and memory
    for up to a quarter more tokens. With gradients, under a tracer or transform, or of tensors that differ in dtype,
    device or another dimension, it is `torch.cat`, with its type promotion and its errors.
    """
    # The order of conditions matters: under torch.compile nothing after the first may be looked at.
    if torch.is_grad_enabled() or required_interface([kept, new])[0] > Interface.MEMORY:
        return torch.cat((kept, new), dim=1)
    if not _alike(kept, new):
        return torch.cat((kept, new), dim=1)
    length, total = kept.shape[1], kept.shape[1] + new.shape[1]
    room = getattr(kept, _ROOM, None)
    if not isinstance(room, _Room) or not room.claim(kept, total):
        room = _Room(_buffer(kept, total + max(_LEAST_ROOM, total // _GROWTH)), total)
        room.buffer[:, :length] = kept
    # `.data`, because the place written to is in no tensor that anything else reads: a graph that has saved the kept
    # tokens for its backward pass may keep them.
    room.buffer.data[:, length:total] = new
    result = room.buffer[:, :total]
    setattr(result, _ROOM, room)
    return result


def _alike(kept: Tensor, new: Tensor) -> bool:
    """Return True if both have one dtype, device and shape, but for the number of tokens."""
    same_rows = kept.shape[0] == new.shape[0] and kept.shape[2:] == new.shape[2:]
    return same_rows and kept.dtype == new.dtype and kept.device == new.device


def _buffer(kept: Tensor, capacity: int) -> Tensor:
    """Make a buffer `[N, capacity, ...]` for tokens like `kept`."""
    if kept.dim() != 4:
        return kept.new_empty(kept.shape[0], capacity, *kept.shape[2:])
    # Heads before tokens in memory: a query reads one head's keys or values in sequence, twice as fast as apart.
    N, _, heads, size = kept.shape
    return kept.new_empty(N, heads, capacity, size).transpose(1, 2)
