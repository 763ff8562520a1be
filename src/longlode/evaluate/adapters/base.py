"""Base of the adapters: a task whose examples are the records of a local JSONL file."""

import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from longlode.core.errors import ConfigError, InputError
from longlode.core.fingerprints import fingerprint
from longlode.core.records import read_jsonl
from longlode.evaluate.tasks.base import MAIN, Encode, Example, Metric, Scores, Task, Tokens, too_short


@dataclass(frozen=True)
class Record:
    """One question of a benchmark.

    context: the long text.   question: what is asked about it, "" where the context holds the question.
    answers: texts that are right, at least one.   extra: what the scorer needs besides.
    """

    context: str
    question: str
    answers: tuple[str, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)


class RecordTask(Task):
    """A benchmark of records. Subclasses write `parse` and `score`.

    format: its name in `--records FORMAT:FILE`.   template: the prompt, with {context} and {question}.
    max_new_tokens: what the model may write.   stop: texts that end it.
    A context that does not fit the length loses its middle, as in LongBench.
    """

    about = "a published benchmark, from a local file"
    format: ClassVar[str]
    template: str = "{context}\n\nQuestion: {question}\nAnswer:"
    max_new_tokens: int = 64
    stop: ClassVar[tuple[str, ...]] = ("\n",)
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "hard",
            "the benchmark's own score of what the model writes, the mean over samples",
            "share",
            "higher",
            words="score by the benchmark's rules",
            headline=True,
        ),
        Metric("smooth", "log-probability of the first right answer", "nats/token", "higher"),
    )

    def __init__(
        self, path: str | os.PathLike[str], *, template: str | None = None, max_new_tokens: int | None = None
    ) -> None:
        """Read a file.

        Args: path, in the benchmark's format, mostly JSON lines; template, max_new_tokens, instead of the class's.
        Raises: InputError for a file that cannot be read, or a line that is not of the format, with its number.
        """
        self.path = Path(path)
        self.name = f"{self.format}_{self.path.stem}"  # type: ignore[misc]
        if template is not None:
            self.template = template
        if max_new_tokens is not None:
            self.max_new_tokens = max_new_tokens
        if "{context}" not in self.template:
            raise ConfigError(f"The template {self.template!r} has no {{context}}; expected one.")
        self.records = self._read()

    def options(self) -> dict[str, Any]:
        """Contents of the records, the prompt and the length of the answer, which determine the examples."""
        contents = fingerprint([[one.context, one.question, *one.answers] for one in self.records])
        return {"records": contents, "template": self.template, "max_new_tokens": self.max_new_tokens}

    @abstractmethod
    def parse(self, raw: Mapping[str, Any]) -> list[Record]:
        """The questions of one line. Raises: KeyError, TypeError or ValueError when it is not of the format."""

    @abstractmethod
    def score(self, record: Record, written: str) -> float:
        """The benchmark's score of an answer, 0 to 1."""

    def num_available(self, length: int, asked: int) -> int:
        """Number of records, at most `asked`."""
        return min(asked, len(self.records))

    def make(self, length: int, seed: int) -> Example:
        """Record number `seed` (modulo their number). Raises: ConfigError where its question does not fit."""
        number = seed % len(self.records)
        record = self.records[number]
        target = f" {record.answers[0]}"
        prompt, cut = fitted(
            lambda context: self._prompt(record, context), record.context, target, length, self.encode
        )
        if prompt is None:
            raise too_short(self.name, length, cut)
        span = (len(prompt) + 1, len(prompt) + len(target))
        meta = {"depth": None, "record": number, "tokens_cut": cut}
        limit = max(1, min(self.max_new_tokens, length - len(self.encode(prompt))))
        return Example(prompt, target, (span,), meta, max_new_tokens=limit, stop=self.stop)

    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """One row: log-probability of the first right answer; `judge` adds the score."""
        return [{"smooth": -scores[MAIN][0].mean_nats}]

    def judge(self, example: Example, written: Sequence[str]) -> dict[str, Any]:
        """The benchmark's score, the mean over samples."""
        record = self.records[example.meta["record"]]
        return {"hard": sum(self.score(record, text) for text in written) / len(written)}

    def _prompt(self, record: Record, context: str) -> str:
        # Not str.format: texts hold braces.
        return self.template.replace("{question}", record.question).replace("{context}", context)

    def raws(self) -> Iterable[Mapping[str, Any]]:
        """The records of the file as they stand there. Raises: InputError for a file that is not there or not JSON."""
        if not self.path.is_file():
            raise InputError(
                f"{self.path} is not there; expected a file of records in {self.format}'s format."
            )
        return read_jsonl(self.path)

    def _read(self) -> list[Record]:
        found: list[Record] = []
        for number, raw in enumerate(self.raws(), 1):
            try:
                found += self.parse(raw)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                what = (
                    f"has no field {error}"
                    if isinstance(error, KeyError)
                    else f"is not as expected ({error})"
                )
                raise InputError(
                    f"{self.path}, record {number}: {what}; it is not of {self.format}'s format."
                ) from None
        if not found or not all(one.answers and all(one.answers) for one in found):
            raise InputError(
                f"{self.path} has no records, or one without an answer; expected one answer or more each."
            )
        return found


def fitted(make: Any, context: str, target: str, length: int, encode: Encode) -> tuple[str | None, int]:
    """(prompt, tokens cut from the middle of the context) within `length` tokens with the target.

    Args: make, from a context to a prompt.
    Returns: (None, tokens needed) where not even an empty context fits.
    """
    total = len(encode(make(context) + target))
    if total <= length:
        return make(context), 0
    empty = len(encode(make("") + target))
    if empty > length:
        return None, empty
    tokens = encode(context)
    room = length - empty
    while True:
        prompt = make(without_middle(context, tokens, room))
        used = len(encode(prompt + target))
        if used <= length:
            return prompt, len(tokens) - room
        room -= used - length  # tokens merge or split where the middle was taken out
        if room <= 0:
            return make(""), len(tokens)


def without_middle(text: str, tokens: Tokens, num: int) -> str:
    """The first and the last half of `num` tokens of a text."""
    shown = [pair for pair in tokens.offsets if pair[0] < pair[1]]
    if num >= len(shown):
        return text
    first, last = (num + 1) // 2, num // 2
    return text[: shown[first - 1][1]] + (text[shown[-last][0] :] if last else "")


def find_records(named: Sequence[str], formats: Mapping[str, type[RecordTask]]) -> list[RecordTask]:
    """Tasks of `FORMAT:FILE` names. Raises: ConfigError for an unknown format; InputError as of the task."""
    found = []
    for one in named:
        format_name, _, path = one.partition(":")
        if format_name not in formats or not path:
            raise ConfigError(
                f"--records got {one!r}; expected FORMAT:FILE, where FORMAT is one of {', '.join(sorted(formats))}."
            )
        found.append(formats[format_name](path))
    return found
