"""How a cache of recurrent states is cut back, which assisted generation asks for: by marks, and by reading again.

A state does not forget on demand. But states are replaced, never written into, so what a cache held at some position
can be kept at no cost but its memory. Cut back to a position, the cache takes the states of the last mark before it,
and the tokens from there to the cut are read once more before anything else is.
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
        """Tokens `start` to `stop - 1` of it."""
        return Part(*(None if tensor is None else tensor[:, start:stop] for tensor in self))  # type: ignore[arg-type]


# Drafts are shorter (transformers: 10 or 20 tokens). Where a long text comes with its first draft, the draft is read
# apart, so that a rejected one does not cost reading the text twice.
_LONG_DRAFT = 64


@dataclass(frozen=True)
class _Mark:
    position: int
    states: list[State | None]


@dataclass
class Rewind:
    """What a cache keeps in order to go back. `recording` says whether it keeps anything."""

    recording: bool = False
    marks: list[_Mark] = field(default_factory=list)
    read: list[Part] = field(default_factory=list)
    """What was read after each mark."""
    pending: list[Part] = field(default_factory=list)
    """What is to be read again: the states stand at a mark, the cache's position at the cut behind it."""

    def forget(self) -> None:
        """Drop the marks: from here on, here is as far back as it goes."""
        self.marks, self.read = [], []

    def parts(self, piece: Part) -> list[Part]:
        """A piece as it should be read: whole, or its likely draft apart."""
        num_tokens = piece.inputs.shape[1]
        first = num_tokens - _LONG_DRAFT
        if not self.recording or first < _LONG_DRAFT:
            return [piece]
        return [piece.between(0, first), piece.between(first, num_tokens)]

    def note(self, position: int, states: list[State | None], part: Part) -> None:
        """Before `part` is read: mark the place, if recording."""
        if self.recording:
            self.marks.append(_Mark(position, states))
            self.read.append(part._replace(inputs=part.inputs.detach()))

    def room(self, position: int) -> int:
        """Positions that can be dropped from `position`."""
        return position - self.marks[0].position if self.recording and self.marks else 0

    def go_back(self, target: int) -> list[State | None]:
        """The states of the last mark at or before `target`; what lies between becomes `pending`."""
        index = max(n for n, mark in enumerate(self.marks) if mark.position <= target)
        missing = target - self.marks[index].position
        for part in self.read[index:]:
            if missing > 0:
                self.pending.append(part.between(0, missing))
            missing -= part.inputs.shape[1]
        return self.marks[index].states

    def select(self, rows: Tensor) -> "Rewind":
        """For a cache with these rows of this one: what is pending, no marks."""
        pending = [
            Part(*(None if tensor is None else tensor.index_select(0, rows) for tensor in part))  # type: ignore[arg-type]
            for part in self.pending
        ]
        return Rewind(self.recording, pending=pending)

    def copy(self) -> "Rewind":
        """The same, to go its own way."""
        return Rewind(self.recording, list(self.marks), list(self.read), list(self.pending))
