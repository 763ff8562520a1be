"""Base of the generated tasks: a context to read, a question, and one or more answers to write.

The answers are scored with the right ones before them: an answer counts when greedy decoding would write all of its
tokens. Where several are asked for, the question fixes their order, so that there is one right text. With `write` the
model also writes its answers, with nothing given, which are looked for in what it wrote.
"""

import random
import sys
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from longlode.core.errors import ConfigError
from longlode.evaluate.tasks.base import MAIN, Example, Metric, Scores, Task, largest_count, too_short
from longlode.evaluate.tasks.controlled import DEPTHS

_SPARE_TOKENS = 16  # more than the right answer takes, for words around it


@dataclass(frozen=True)
class Question:
    """One question of some size.

    context: what has to be read.   ask: the question, up to the space before the first answer.
    answers: what is scored.   joint: what stands between two answers, which is not scored;
      one text for all, or one before each answer but the first.
    meta: columns of the row; `depth` is None where the answer has no one place.
    """

    context: str
    ask: str
    answers: tuple[str, ...]
    joint: str | tuple[str, ...] = ", "
    meta: dict[str, Any] = field(default_factory=lambda: {"depth": None})


def answer_metrics(chance: float, words: str = "answers given in full") -> tuple[Metric, ...]:
    """The columns of a generated task: share of answers, all of them, and their log-probability."""
    return (
        Metric(
            "hard",
            "answers that greedy decoding writes in full, the ones before given",
            "share",
            "higher",
            words=words,
            headline=True,
            chance=chance,
        ),
        Metric("exact", "greedy decoding writes every answer", "share", "higher", "wilson"),
        Metric("smooth", "log-probability of the answers", "nats/token", "higher"),
    )


WRITTEN = (
    Metric(
        "contained",
        "answers that stand in the text that the model writes, the mean over samples",
        "share",
        "higher",
        words="answers found in the written text",
        headline=True,
    ),
    Metric("solved", "samples with every answer", "share", "higher"),
    Metric("solved_once", "a sample or more with every answer", "share", "higher", "wilson"),
)
"""Further metrics of a task whose answers the model writes; `contained` is RULER's string match."""


class GeneratedTask(Task):
    """A task whose questions come from a seed alone, at the largest size that fits the length.

    Subclasses write `question`. `choices`: the answers there can be, where they are few; `smallest`, `largest`: sizes.
    `spare`: how much longer than one question of the smallest size another may be.   `always_writes`: whether the
    model writes whatever `write` is; such a task has a `judge` of its own.
    """

    metrics: ClassVar[tuple[Metric, ...]] = answer_metrics(0.0)
    choices: ClassVar[tuple[str, ...]] = ()
    smallest: ClassVar[int] = 1
    largest: ClassVar[int] = sys.maxsize
    spare: ClassVar[float] = 1.1
    always_writes: ClassVar[bool] = False
    stop: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Set the chance level of a task that has choices."""
        super().__init_subclass__()
        if cls.choices and "metrics" not in cls.__dict__:
            cls.metrics = answer_metrics(1 / len(cls.choices))

    def __init__(self, repeat: int = 1, write: bool = False) -> None:
        """Set up the task.

        Args: repeat, how often the context stands before the question (2: Just Read Twice, arXiv 2407.05483); write,
          let the model also write its answers.
        """
        if repeat < 1:
            raise ConfigError(f"repeat is {repeat}; expected 1 or more.")
        self.repeat, self.write = repeat, write
        if write and not self.always_writes:
            # Each instance has its own metrics: a class that does not write must not promise what writing gives.
            self.metrics = (*type(self).metrics, *WRITTEN)  # type: ignore[misc]

    def options(self) -> dict[str, Any]:
        """The number of times that the context stands there, and whether the answers are written as well."""
        return {"repeat": self.repeat, **({"write": True} if self.write else {})}

    def num_available(self, length: int, asked: int) -> int:
        """All that are asked for, where the smallest question fits `spare` times; else none."""
        smallest = self.question(self.smallest, 0.0, random.Random(self.name))
        prompt, target, _ = self._laid_out(smallest)
        return asked if self.spare * len(self.encode(prompt + target)) <= length else 0

    @abstractmethod
    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """A question of `size` (what that counts is the task's own). Equal arguments give an equal question.

        Args: depth, where the answer stands, 0 at the start and 1 right before the question; tasks without one place
          ignore it.
        """

    def asked(self, length: int, seed: int) -> Question:
        """The largest question that fits into `length` tokens; its depth is DEPTHS[seed mod 5]."""
        depth = DEPTHS[seed % len(DEPTHS)]

        def sized(size: int) -> Question:
            return self.question(self.smallest + size, depth, random.Random(f"{self.name} {length} {seed}"))

        def num_tokens(size: int) -> int:
            if self.smallest + size > self.largest:
                return length + 1
            prompt, target, _ = self._laid_out(sized(size))
            return len(self.encode(prompt + target))

        size = largest_count(num_tokens, length)
        if size < 0:
            raise too_short(self.name, length, num_tokens(0))
        return sized(size)

    def make(self, length: int, seed: int) -> Example:
        """The largest question that fits into `length` tokens, as a text with its answers marked."""
        question = self.asked(length, seed)
        prompt, target, spans = self._laid_out(question)
        meta = {"num_answers": len(question.answers), **question.meta}
        if not (self.write or self.always_writes):
            return Example(prompt, target, spans, meta)
        wanted = len(self.encode(prompt + target)) - len(self.encode(prompt))
        return Example(prompt, target, spans, meta, max_new_tokens=wanted + _SPARE_TOKENS, stop=self.stop)

    def judge(self, example: Example, written: Sequence[str]) -> dict[str, Any]:
        """Share of the answers that each text contains, and whether it contains all."""
        answers = [example.text[start:stop] for start, stop in example.answer_spans]
        shares = [sum(answer in text for answer in answers) / len(answers) for text in written]
        solved = [share == 1.0 for share in shares]
        return {
            "contained": sum(shares) / len(shares),
            "solved": sum(solved) / len(solved),
            "solved_once": float(any(solved)),
        }

    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """One row: share of answers, all of them, log-probability per token."""
        answers = scores[MAIN]
        nats = sum(float(answer.nats.sum()) for answer in answers)
        return [
            {
                "hard": sum(answer.greedy_exact for answer in answers) / len(answers),
                "exact": float(all(answer.greedy_exact for answer in answers)),
                "smooth": -nats / sum(len(answer.nats) for answer in answers),
            }
        ]

    def _laid_out(self, question: Question) -> tuple[str, str, tuple[tuple[int, int], ...]]:
        prompt = question.context * self.repeat + question.ask
        target, spans, joint = "", [], question.joint
        joints = (joint,) * (len(question.answers) - 1) if isinstance(joint, str) else joint
        for before, answer in zip((" ", *joints), question.answers, strict=True):
            target += before
            start = len(prompt) + len(target)
            target += answer
            spans.append((start, start + len(answer)))
        return prompt, target, tuple(spans)


def spread(lines: list[str], hidden: list[str], depths: list[float]) -> list[str]:
    """The lines with each hidden one put in at its depth; hidden ones of one place keep their order."""
    at = sorted(zip(depths, range(len(hidden)), strict=True))
    found: list[str] = []
    done = 0
    for depth, number in at:
        place = round(depth * len(lines))
        found += [*lines[done:place], hidden[number]]
        done = place
    return found + lines[done:]
