"""Cropping of caches of recurrent states, for assisted generation: by saved marks, and by reading again.

A recurrent state cannot drop tokens. But states are replaced, never modified in place, so those of some position can
be kept at the cost of their memory only. To crop to a position, the cache takes the states of the last mark before it,
and the tokens from there to the position are read again before anything else.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from longlode.mixers import State


class Part(NamedTuple):
    """A part of a text: embedded tokens `[B, T, D]`, mask `[B, T]` (False at padding), token ids `[B, T]`."""

    inputs: Tensor
    mask: Tensor | None = None
    token_ids: Tensor | None = None

    def between(self, start: int, stop: int) -> "Part":
        """Return tokens `start` to `stop - 1`."""
        return Part(*(None if tensor is None else tensor[:, start:stop] for tensor in self))  # type: ignore[arg-type]


# Drafts are shorter (transformers: 10 or 20 tokens). If a long text comes with its first draft, the draft is read
# separately, so that rejecting it does not cost reading the text twice.
_LONG_DRAFT = 64


@dataclass(frozen=True)
class _Mark:
    position: int
    states: list[State | None]


@dataclass
class Rewind:
    """Marks of a cache for going back. `recording`: True if it keeps any."""

    recording: bool = False
    marks: list[_Mark] = field(default_factory=list)
    read: list[Part] = field(default_factory=list)
    """Parts read after each mark."""
    pending: list[Part] = field(default_factory=list)
    """Parts to be read again: the states are those of a mark, the cache's position is the crop after it."""

    def forget(self) -> None:
        """Drop the marks, so that this position is the earliest to go back to."""
        self.marks, self.read = [], []

    def parts(self, piece: Part) -> list[Part]:
        """Split a piece for reading: as a whole, or with its likely draft separate."""
        num_tokens = piece.inputs.shape[1]
        first = num_tokens - _LONG_DRAFT
        if not self.recording or first < _LONG_DRAFT:
            return [piece]
        return [piece.between(0, first), piece.between(first, num_tokens)]

    def note(self, position: int, states: list[State | None], part: Part) -> None:
        """Mark the position before `part` is read, if recording."""
        if self.recording:
            self.marks.append(_Mark(position, states))
            self.read.append(part._replace(inputs=part.inputs.detach()))

    def room(self, position: int) -> int:
        """Return the number of positions that can be dropped from `position`."""
        return position - self.marks[0].position if self.recording and self.marks else 0

    def go_back(self, target: int) -> list[State | None]:
        """Return the states of the last mark at or before `target`; the tokens between become `pending`."""
        index = max(n for n, mark in enumerate(self.marks) if mark.position <= target)
        missing = target - self.marks[index].position
        for part in self.read[index:]:
            if missing > 0:
                self.pending.append(part.between(0, missing))
            missing -= part.inputs.shape[1]
        return self.marks[index].states

    def select(self, rows: Tensor) -> "Rewind":
        """Make the marks for a cache with these rows: the pending parts, no marks."""
        pending = [
            Part(*(None if tensor is None else tensor.index_select(0, rows) for tensor in part))  # type: ignore[arg-type]
            for part in self.pending
        ]
        return Rewind(self.recording, pending=pending)

    def copy(self) -> "Rewind":
        """Copy the marks and pending parts."""
        return Rewind(self.recording, list(self.marks), list(self.read), list(self.pending))
