"""Loss by position: nats per token on held-out documents, by how many tokens stood before.

A model that uses its context pays less the more it has read; one that does not is flat after a few hundred
tokens. All buckets hold the same windows, so the curve compares positions, not documents.
"""

import random
from typing import Any

from longlode.core.errors import ConfigError
from longlode.evaluate.tasks.base import MAIN, Curve, Example, Metric, Scores, Task

_FIRST_EDGE = 16


class LossByPosition(Task):
    """Mean surprisal in buckets of positions [1, 16), [16, 32), [32, 64) ... up to the length."""

    name = "loss_by_position"
    about = "surprisal of held-out documents by the number of tokens before"
    needs_texts = True
    weight_column = "num_scored"
    group_column = "text"
    key_columns = ("bucket_start",)
    curve = Curve("bucket_start", "bucket_stop", "nats")
    metrics = (
        Metric("hard", "tokens that greedy decoding gets right", "share", "higher"),
        Metric("smooth", "log-probability of the text", "nats/token", "higher"),
        Metric("nats", "loss", "nats/token", "lower", words="held-out loss", headline=True),
    )

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
            random.Random("loss_by_position").shuffle(order)
            rounds = max((len(offsets) // length for offsets in self._offsets), default=0)
            self._windows[length] = [
                (text, turn * length)
                for turn in range(rounds)
                for text in order
                if len(self._offsets[text]) >= (turn + 1) * length
            ]
        return self._windows[length]

    def num_available(self, length: int, asked: int) -> int:
        """As many as there are windows, at most `asked`."""
        return min(asked, len(self.windows(length)))

    def make(self, length: int, seed: int) -> Example:
        """Window number `seed` (modulo their number); its text may run past `length` tokens, where the
        reader stops.
        """
        windows = self.windows(length)
        if not windows:
            longest = max(len(offsets) for offsets in self._offsets)
            raise ConfigError(
                f"task {self.name!r} needs held-out texts of at least {length} tokens; the longest of the "
                f"{len(self.texts)} given has {longest}. Ask for shorter lengths or give longer texts."
            )
        text, first = windows[seed % len(windows)]
        offsets = self._offsets[text]
        start = offsets[first][0] if first else 0
        last = (
            min(first + length + 8, len(offsets)) - 1
        )  # a cut text may take a token or two less at its edges
        window = self.texts[text][start : max(offsets[last][1], start)]
        return Example("", window, ((0, len(window)),), {"depth": None, "text": text, "first_token": first})

    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """One row a bucket."""
        (score,) = scores[MAIN]
        rows = []
        for start, stop in bucket_edges(int(score.positions[-1]) + 1):
            inside = (score.positions >= start) & (score.positions < stop)
            nats = float(score.nats[inside].mean())
            rows.append(
                {
                    "bucket_start": start,
                    "bucket_stop": stop,
                    "num_scored": int(inside.sum()),
                    "hard": float(score.hits[inside].mean()),
                    "smooth": -nats,
                    "nats": nats,
                }
            )
        return rows


def bucket_edges(length: int) -> list[tuple[int, int]]:
    """[1, 16), [16, 32), [32, 64) ... the last one stops at `length` positions."""
    edges = [1]
    edge = _FIRST_EDGE
    while edge < length:
        edges.append(edge)
        edge *= 2
    return list(zip(edges, [*edges[1:], length], strict=True)) if length > 1 else []
