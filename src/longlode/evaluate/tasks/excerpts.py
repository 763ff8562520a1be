"""Questions about an excerpt of a held-out document: which of two segments came first, and what the first sentence was.

The first is SORT (arXiv 2410.08133) with its settings: segments of 20 words that begin with a sentence, distances in
four bins of the excerpt's length, both orders equally often. The first sentence is asked for after the rest of the
excerpt, so its distance is the length. Both have a control that leaves out what the answer needs.
"""

import random
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from longlode.core.errors import ConfigError
from longlode.evaluate.tasks.base import MAIN, Example, Metric, Scores, largest_count
from longlode.evaluate.tasks.controlled import CONTROL, HiddenAnswer, gain_row
from longlode.evaluate.tasks.heldout import HeldoutWindows

SEGMENT = 20  # words
FRACTIONS = (1 / 4, 1 / 3, 1 / 2, 1 / 1.25)  # upper edges of the bins of distance, of the excerpt's words
_SPARE = 1.1  # other seeds ask about other segments
_SENTENCE = re.compile(r"\S.*?[.!?][\"')\]]*(?=\s|$)", re.DOTALL)


@dataclass(frozen=True)
class Asked:
    """Prompt and answer of a question, of the same under other conditions (by name), and columns of the row."""

    prompt: str
    answer: str
    others: dict[str, tuple[str, str]]
    meta: dict[str, Any]

    def example(self) -> Example:
        """As an example; the answer is scored without the space before it."""
        variants = {
            name: Example(prompt, f" {answer}", (_span(prompt, answer),), self.meta)
            for name, (prompt, answer) in self.others.items()
        }
        span = _span(self.prompt, self.answer)
        return Example(self.prompt, f" {self.answer}", (span,), self.meta, variants)


def _span(prompt: str, answer: str) -> tuple[int, int]:
    return len(prompt) + 1, len(prompt) + 1 + len(answer)


def sentences(text: str) -> list[str]:
    """The sentences of a text, white space made single; what follows the last full stop is left out."""
    return [" ".join(found.group().split()) for found in _SENTENCE.finditer(text)]


class ExcerptTask(HeldoutWindows):
    """A task on as many sentences of a window as fit. Subclasses write `asked`; `least` sentences are needed."""

    suites = ("text",)
    group_column = "text"
    least: ClassVar[int]

    @abstractmethod
    def asked(self, parts: Sequence[str], seed: int) -> Asked | None:
        """The question about these sentences; None where they hold none."""

    def windows(self, length: int) -> list[tuple[int, int]]:
        """(text, first token) of the windows that hold a question."""
        usable = self.__dict__.setdefault("_usable", {})
        if length not in usable:
            usable[length] = [one for one in super().windows(length) if self._is_usable(one, length)]
        return usable[length]

    def make(self, length: int, seed: int) -> Example:
        """The question on window number `seed` (modulo their number), with as many sentences as fit.

        Raises: ConfigError when no window holds a question.
        """
        if super().windows(length) and not self.windows(length):
            raise ConfigError(
                f"task {self.name!r} finds no question in the held-out texts at {length} tokens; expected windows of "
                f"{self.least} sentences or more. Ask for longer lengths or give texts of prose."
            )
        window, text, first = self.window(length, seed)
        parts = _whole(window, first)

        def num_tokens(more: int) -> int:
            if self.least + more > len(parts):
                return length + 1
            return self._num_tokens(parts[: self.least + more], seed)

        size = self.least + max(0, largest_count(num_tokens, length))
        asked = self.asked(parts[:size], seed)
        assert asked is not None  # `windows` has those with a question
        example = asked.example()
        example.meta.update({"text": text, "first_token": first, "num_sentences": size})
        return example

    def _is_usable(self, window: tuple[int, int], length: int) -> bool:
        parts = _whole(self.text_of(window, length), window[1])[: self.least]
        counts = (self._num_tokens(parts, seed) for seed in range(8))
        return len(parts) == self.least and all(0 < _SPARE * count <= length for count in counts)

    def _num_tokens(self, parts: Sequence[str], seed: int) -> int:
        asked = self.asked(parts, seed)
        return 0 if asked is None else len(self.encode(f"{asked.prompt} {asked.answer}"))


def _whole(window: str, first: int) -> list[str]:
    """Sentences of a window, but for the one that it begins in the middle of."""
    return sentences(window)[1 if first else 0 :]


class SegmentOrder(ExcerptTask):
    """A or B: the segment that came first."""

    name = "segment_order"
    about = "which of two segments of twenty words came first in an excerpt of a held-out document"
    least = 8
    metrics = (
        Metric(
            "hard",
            "the right one of the two answers is the more probable",
            "share",
            "higher",
            "wilson",
            words="orders found",
            headline=True,
            chance=0.5,
        ),
        Metric("smooth", "log-probability of the right answer, of the two", "nats/token", "higher"),
        Metric(
            "gain",
            "log-probability of the right answer gained from the excerpt",
            "nats/token",
            "higher",
            words="gain from the excerpt",
            headline=True,
            baseline=0.0,
            at_baseline="no use of the excerpt is shown",
        ),
    )

    def asked(self, parts: Sequence[str], seed: int) -> Asked | None:
        """Two segments at a distance of bin `seed // 2`; the first is A for even seeds."""
        words = " ".join(parts).split()
        pair = self._pair(parts, len(words), seed)
        if pair is None:
            return None
        early, late = (" ".join(words[start : start + SEGMENT]) for start in pair)
        right, wrong = "AB" if seed % 2 == 0 else "BA"
        first, second = (early, late) if right == "A" else (late, early)
        question = (
            f"Segment A: {first}\nSegment B: {second}\nThe segment that comes first in the text is Segment"
        )
        prompt = f"A text:\n{' '.join(parts)}\n\n{question}"
        others = {"wrong": (prompt, wrong), CONTROL: (question, right), "wrong_control": (question, wrong)}
        return Asked(prompt, right, others, {"depth": None, "distance": pair[1] - pair[0], "first": right})

    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """One row: both answers compared, with the excerpt and without."""
        odds = [
            scores[wrong][0].nats.sum() - scores[right][0].nats.sum()
            for right, wrong in ((MAIN, "wrong"), (CONTROL, "wrong_control"))
        ]
        smooth, control = (-float(np.logaddexp(0.0, -one)) for one in odds)
        row = {"hard": float(odds[0] > 0), "smooth": smooth}
        return [{**row, "smooth_control": control, "gain": smooth - control}]

    @staticmethod
    def _pair(parts: Sequence[str], num_words: int, seed: int) -> tuple[int, int] | None:
        """First words of two segments that differ and do not overlap; of any distance where the bin has none."""
        starts = np.cumsum([0, *(len(part.split()) for part in parts)])
        starts = starts[starts + SEGMENT <= num_words]
        edges = [SEGMENT, *(int(share * num_words) for share in FRACTIONS)]
        number = seed // 2 % len(FRACTIONS)
        order = random.Random(f"segment_order {seed}").sample(range(len(starts)), len(starts))
        for low, high in ((edges[number], edges[number + 1]), (SEGMENT, num_words)):
            for one in order:
                far = starts[(starts >= starts[one] + max(low, SEGMENT)) & (starts < starts[one] + high)]
                if len(far):
                    return int(starts[one]), int(far[seed % len(far)])
        return None


class FirstSentence(ExcerptTask):
    """The first sentence of an excerpt, after the rest of it."""

    name = "first_sentence"
    about = "the first sentence of an excerpt of a held-out document, asked for at its end"
    least = 2
    metrics = HiddenAnswer.metrics

    def asked(self, parts: Sequence[str], seed: int) -> Asked:
        """All sentences, then the first again; the control has all but the first."""
        prompts = [
            f"A text:\n{' '.join(shown)}\n\nThe first sentence of the text was:"
            for shown in (parts, parts[1:])
        ]
        return Asked(prompts[0], parts[0], {CONTROL: (prompts[1], parts[0])}, {"depth": 0.0})

    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """One row: hard, smooth, both of the control, and the gain."""
        return [gain_row(scores[MAIN][0], scores[CONTROL][0])]
