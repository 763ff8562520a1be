"""Base of tasks with one hidden answer, and with a control: the same question with the answer left out of the text.

A model that has learnt that digits follow "the pass code is" scores well on digits without reading anything;
only the gain over the control shows that the context was used.
"""

from abc import abstractmethod
from typing import Any, ClassVar

from longlode.evaluate.tasks.base import (
    MAIN,
    Example,
    Metric,
    Scores,
    SpanScore,
    Task,
    largest_count,
    too_short,
)

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # 0: the answer stands at the start, 1: right before the question
CONTROL = "no_context"


class HiddenAnswer(Task):
    """A task whose text hides one fact at a depth, and whose control is the same text without the fact."""

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "hard",
            "greedy decoding writes the whole answer",
            "share",
            "higher",
            "wilson",
            words="answers given in full",
            headline=True,
        ),
        Metric("smooth", "log-probability of the answer", "nats/token", "higher"),
        Metric(
            "gain",
            "log-probability of the answer gained from the line that holds it",
            "nats/token",
            "higher",
            words="gain from the line with the answer",
            headline=True,
            baseline=0.0,
            at_baseline="no use of that line is shown",
        ),
        Metric(
            "hard_control",
            "greedy decoding writes the answer though its line is left out",
            "share",
            "",
            "wilson",
        ),
    )

    @abstractmethod
    def page(self, length: int, seed: int, depth: float) -> "Page":
        """Material of one example, not yet cut to its size."""

    def make(self, length: int, seed: int) -> Example:
        """The longest page that fits into `length` tokens; its depth is DEPTHS[seed mod 5]."""
        depth = DEPTHS[seed % len(DEPTHS)]
        page = self.page(length, seed, depth)

        def num_tokens(size: int) -> int:
            if size > page.max_size:
                return length + 1
            return len(self.encode(page.prompt(size, True) + " " + page.answer(size)))

        size = largest_count(num_tokens, length)
        if size < 0:
            raise too_short(self.name, length, num_tokens(0))
        meta = {"depth": depth, page.size_name: size + page.size_offset}
        control = _ask(page, size, meta, {}, with_fact=False)
        return _ask(page, size, meta, {CONTROL: control}, with_fact=True)

    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """One row: hard, smooth, both of the control, and the gain."""
        return [gain_row(scores[MAIN][0], scores[CONTROL][0])]


def gain_row(answer: SpanScore, control: SpanScore) -> dict[str, float]:
    """The columns of an answer and of the same one in the control."""
    return {
        "hard": float(answer.greedy_exact),
        "smooth": -answer.mean_nats,
        "hard_control": float(control.greedy_exact),
        "smooth_control": -control.mean_nats,
        "gain": control.mean_nats - answer.mean_nats,
    }


class Page:
    """The text of one hidden-answer example at any size. Subclasses write `prompt` and `answer`.

    size_name: column that the size goes into, after adding `size_offset`.   max_size: the largest size there
      is.
    """

    size_name: str
    size_offset: int = 0
    max_size: int

    @abstractmethod
    def prompt(self, size: int, with_fact: bool) -> str:
        """The page and the question, up to the space before the answer."""

    @abstractmethod
    def answer(self, size: int) -> str:
        """The answer, without the space before it."""


def _ask(
    page: Page, size: int, meta: dict[str, Any], variants: dict[str, Example], *, with_fact: bool
) -> Example:
    prompt, answer = page.prompt(size, with_fact), page.answer(size)
    start = (
        len(prompt) + 1
    )  # the space belongs to the answer's first token or stands alone; it is not scored alone
    return Example(prompt, f" {answer}", ((start, start + len(answer)),), meta, variants)
