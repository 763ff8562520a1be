"""Buffers reused for every tile: new memory costs a page fault per 4 KiB, more than the arithmetic on it."""

import math

import torch


class Scratch:
    """Named, uninitialised buffers of one dtype on one device, for one forward or backward call."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        """Make an empty set of buffers."""
        self.dtype = dtype
        self.device = device
        self._flat: dict[str, torch.Tensor] = {}

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """Return a contiguous tensor of `shape` with arbitrary contents, valid until `name` is taken again."""
        size = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size:
            flat = self._flat[name] = torch.empty(size, dtype=self.dtype, device=self.device)
        return flat[:size].view(shape)
