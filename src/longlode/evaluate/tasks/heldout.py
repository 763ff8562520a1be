"""Base of tasks that read held-out documents in windows."""

import random

from longlode.core.errors import ConfigError
from longlode.evaluate.tasks.base import Task

_MARGIN = 8  # tokens: a cut text may take a token or two less at its edges


class HeldoutWindows(Task):
    """A task on windows of held-out documents, taken from all documents in turn."""

    needs_texts = True

    def prepare(self) -> None:
        """Tokenize every held-out text once."""
        self._offsets = [
            [pair for pair in self.encode(text).offsets if pair[0] < pair[1]] for text in self.texts
        ]
        self._windows: dict[int, list[tuple[int, int]]] = {}

    def windows(self, length: int) -> list[tuple[int, int]]:
        """(text, first token) of every window of `length` tokens; windows do not overlap, first ones come
        first.
        """
        if length not in self._windows:
            order = list(range(len(self._offsets)))
            random.Random("loss_by_position").shuffle(order)  # the order of the records that exist
            rounds = max((len(offsets) // length for offsets in self._offsets), default=0)
            self._windows[length] = [
                (text, turn * length)
                for turn in range(rounds)
                for text in order
                if len(self._offsets[text]) >= (turn + 1) * length
            ]
        return self._windows[length]

    def num_available(self, length: int, asked: int) -> int:
        """Number of windows, at most `asked`."""
        return min(asked, len(self.windows(length)))

    def window(self, length: int, seed: int) -> tuple[str, int, int]:
        """The text of window number `seed` (modulo their number), its document, and its first token there.

        The text may run a few tokens past `length`, where the reader stops.
        Raises: ConfigError when no document is that long.
        """
        windows = self.windows(length)
        if not windows:
            longest = max(len(offsets) for offsets in self._offsets)
            raise ConfigError(
                f"task {self.name!r} needs held-out texts of at least {length} tokens; the longest of the "
                f"{len(self.texts)} given has {longest}. Ask for shorter lengths or give longer texts."
            )
        chosen = windows[seed % len(windows)]
        return self.text_of(chosen, length), *chosen

    def text_of(self, window: tuple[int, int], length: int) -> str:
        """The text of a window (its document, its first token) of `length` tokens, and a few more."""
        text, first = window
        offsets = self._offsets[text]
        start = offsets[first][0] if first else 0
        last = min(first + length + _MARGIN, len(offsets)) - 1
        return self.texts[text][start : max(offsets[last][1], start)]
