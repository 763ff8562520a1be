"""Bits per character of held-out text, by windows that overlap, as for character-level benchmarks such as enwik8.

Every character of the second half of a window is predicted after at least half a window of context, so tokens near a
window's start do not count against a model; and a unit per character compares models of different tokenizers.
"""

import math
from typing import Any

from longlode.evaluate.tasks.base import MAIN, Example, Metric, Scores
from longlode.evaluate.tasks.heldout import HeldoutWindows


class BitsPerCharacter(HeldoutWindows):
    """Bits per character of the second half of windows."""

    name = "bits_per_character"
    about = "bits per character of held-out documents, each predicted after half a window or more"
    suites = ("text",)
    weight_column = "num_characters"
    group_column = "text"
    metrics = (
        Metric(
            "bits",
            "surprisal of the text",
            "bits/character",
            "lower",
            words="bits per character",
            headline=True,
        ),
    )

    def make(self, length: int, seed: int) -> Example:
        """Window number `seed` (modulo their number); its second half is scored."""
        window, text, first = self.window(length, seed)
        offsets = [pair for pair in self.encode(window).first(length).offsets if pair[0] < pair[1]]
        start, stop = offsets[len(offsets) // 2][0], offsets[-1][1]
        meta = {"depth": None, "text": text, "first_token": first, "num_characters": stop - start}
        return Example(window[:start], window[start:stop], ((start, stop),), meta)

    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """One row: the bits of the scored tokens, per character."""
        nats = float(scores[MAIN][0].nats.sum())
        return [{"bits": nats / math.log(2) / example.meta["num_characters"]}]
