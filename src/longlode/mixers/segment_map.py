"""Effect of a segment of tokens on a state, as a map: S -> M S + H, with M a number, a diagonal or a matrix.

Maps compose: the map of two segments is that of the second after the first. So each part of a long sequence can
compute its map from a zero state, and the state before every part follows from the maps of the parts before it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SegmentMap:
    """The map S' = M S + H on states `[N, H, K, V]`.

    added: H, `[N, H, K, V]`. matrix: M, `[N, H, K, K]` (delta rule), or None. log_decay: M = diag(exp(log_decay)),
    `[N, H, 1 or K]` (gated linear attention, Mamba-2), or None. With neither, M is the identity (linear attention).
    Source: arXiv 2406.06484 section 3 (delta rule); LASP-2, arXiv 2502.07563 (linear attention).
    """

    added: Tensor
    matrix: Tensor | None = None
    log_decay: Tensor | None = None

    def __call__(self, state: Tensor | None) -> Tensor:
        """Return the state after the segment, for the state before it (None: zero)."""
        return self.added if state is None else self._faded(state) + self.added

    def nothing(self) -> Tensor:
        """Return the state before any token, of the shape of `added`."""
        return torch.zeros_like(self.added)

    def then(self, after: "SegmentMap") -> "SegmentMap":
        """Return the map of this segment followed by another."""
        matrix, log_decay = self.matrix, self.log_decay
        if after.matrix is not None:
            matrix = after.matrix if matrix is None else after.matrix @ matrix
        if after.log_decay is not None:
            log_decay = after.log_decay if log_decay is None else log_decay + after.log_decay
        return SegmentMap(after(self.added), matrix, log_decay)

    def _faded(self, state: Tensor) -> Tensor:
        if self.matrix is not None:
            state = self.matrix.to(state.dtype) @ state
        if self.log_decay is not None:
            state = self.log_decay.to(state.dtype).exp()[..., None] * state
        return state


def fold(maps: list[SegmentMap], first: Tensor | None) -> Tensor | None:
    """Return the state after all segments, first to last, from the state `first` before them (None: zero)."""
    state = first
    for one in maps:
        state = one(state)
    return state


def identity_states(num_rows: int, num_heads: int, size: int, like: Tensor) -> Tensor:
    """Make identity matrices `[N, H, K, K]` in float32 or wider, from which the delta rule computes its M."""
    eye = torch.eye(size, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
    return eye.expand(num_rows, num_heads, size, size).contiguous()
