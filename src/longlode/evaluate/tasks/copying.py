"""Copying (arXiv 2402.01032), and verbatim memory of a passage after a delay (after arXiv 2210.13569).

Copy repeats all of the text, so what has to be kept grows with the length. Verbatim memory repeats one passage of forty
words, at a depth in prose of other words: what the delay does, at a constant amount to keep.
"""

import random

from longlode.evaluate.tasks.generated import GeneratedTask, Question, answer_metrics, spread
from longlode.evaluate.tasks.words import NOUNS, filler_sentence

_LINE = 10
_PASSAGE = 40
_CUE = 5


class Copy(GeneratedTask):
    """Lines of random words, all of them again."""

    name = "copy"
    about = "lines of ten random words, copied"
    suites = ("recall",)
    metrics = answer_metrics(0.0, words="lines copied")

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` lines."""
        lines = [" ".join(rng.choices(NOUNS, k=_LINE)) for _ in range(size)]
        context = "A text:\n" + "\n".join(lines) + "\n\n"
        return Question(
            context, "The same text:\n-", tuple(lines), "\n- ", {"depth": None, "num_lines": size}
        )


class VerbatimMemory(GeneratedTask):
    """A passage of random words, again after prose."""

    name = "verbatim_memory"
    about = "a passage of forty random words comes again after prose; its first five are given"
    suites = ("recall",)
    metrics = answer_metrics(1 / len(NOUNS), words="words of the passage recalled")

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` sentences around the passage."""
        words = rng.choices(NOUNS, k=_PASSAGE)
        lines = spread(
            [filler_sentence(rng) for _ in range(size)], [f"She wrote: {' '.join(words)}."], [depth]
        )
        ask = f"\nWhat she wrote was: {' '.join(words[:_CUE])}"
        meta = {"depth": depth, "num_lines": size}
        return Question(" ".join(lines), ask, tuple(words[_CUE:]), " ", meta)
