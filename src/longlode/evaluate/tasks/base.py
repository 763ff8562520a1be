"""Interface of all tasks, and the values that pass through it.

A task makes texts with marked answers and turns the model's surprisal on those answers into rows. It never
sees a model: `run.py` reads each text once and returns, for every marked span, nats and greedy hits per token;
where an example asks for it, the model also writes an answer, which the task judges.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np

from longlode.core.errors import ConfigError
from longlode.core.plugins import package_of

MAIN = ""  # name of an example's own text among its variants


@dataclass(frozen=True)
class Tokens:
    """A tokenized text.

    ids: token ids, special tokens included.
    offsets: for each token its [start, stop) in characters; start == stop for special tokens.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    def first(self, num_tokens: int) -> "Tokens":
        """The first `num_tokens` tokens."""
        return Tokens(self.ids[:num_tokens], self.offsets[:num_tokens])

    def last(self, num_tokens: int) -> "Tokens":
        """The last `num_tokens` tokens, after the special tokens at the start that every text begins with."""
        special = next((i for i, (left, right) in enumerate(self.offsets) if left < right), len(self))
        start = max(special, len(self) - num_tokens)
        return Tokens(self.ids[:special] + self.ids[start:], self.offsets[:special] + self.offsets[start:])

    def positions(self, start: int, stop: int) -> np.ndarray:
        """Token positions (int64) that overlap characters [start, stop) and can be predicted, so never
        position 0.
        """
        left, right = self._edges
        (found,) = np.nonzero((left < stop) & (right > start) & (left < right))
        return found[found > 0].astype(np.int64)

    @cached_property
    def _edges(self) -> np.ndarray:
        return np.asarray(self.offsets, dtype=np.int64).reshape(-1, 2).T


Encode = Callable[[str], Tokens]


@dataclass(frozen=True)
class Example:
    """One question to a model.

    prompt, target: what is given and what should follow; the model reads `prompt + target`.
    answer_spans: [start, stop) in characters of `prompt + target`, the parts whose tokens are scored.
    meta: extra columns of the row, e.g. {"depth": 0.5}.
    variants: the same question asked under another condition, e.g. {"no_context": ...}; read and scored as
      well.
    last: how many tokens of the text are read, counted from its end (special tokens at the start besides); None: all.
      So the same tokens can be asked for after less and after more context.
    max_new_tokens: how many tokens the model writes after the prompt for `Task.judge`; 0: it only reads.
    stop: texts that end what it writes, and are left out of it.
    """

    prompt: str
    target: str
    answer_spans: tuple[tuple[int, int], ...]
    meta: dict[str, Any]
    variants: dict[str, "Example"] = field(default_factory=dict)
    last: int | None = None
    max_new_tokens: int = 0
    stop: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The text that the model reads."""
        return self.prompt + self.target

    def conditions(self) -> dict[str, "Example"]:
        """The example itself under the name MAIN, then its variants."""
        return {MAIN: self, **self.variants}


@dataclass(frozen=True)
class SpanScore:
    """Scores of a model on the tokens of one answer span.

    positions: int64 [n], number of tokens before each.
    nats: float64 [n], surprisal -log p(token | everything before).
    hits: bool [n], whether the token had the highest probability of all (the greedy choice).
    """

    positions: np.ndarray
    nats: np.ndarray
    hits: np.ndarray

    @property
    def mean_nats(self) -> float:
        """Mean surprisal in nats per token."""
        return float(self.nats.mean())

    @property
    def greedy_exact(self) -> bool:
        """Tell if greedy decoding would write exactly these tokens here.

        Equal to decoding: greedy decoding takes the argmax after the true prefix, so its first token is right
        iff the first hit is true; then the prefix is again the true one, and so on by induction. Only the
        tokens of this very tokenization count: the same text in other tokens would be called wrong.
        """
        return bool(self.hits.all())


Scores = Mapping[str, Sequence[SpanScore]]  # condition -> one SpanScore per answer span


@dataclass(frozen=True)
class Metric:
    """A column of the rows that the summary averages, with all that is needed to read its values.

    name: the column.   about: one clause.   unit: e.g. "nats/token", "share", "ratio".
    better: "higher" or "lower", "" where neither is better.
    interval: "wilson" for columns of 0 and 1, "bootstrap" for every other.
    words: a noun phrase for sentences, e.g. "passkeys recalled"; default: `about`.
    headline: whether it is shown in charts, sentences and comparisons of the report; the others are in tables.
    chance: score of a model that reads nothing, None if that is not known.
    baseline: the value that shows no effect of the context (0 for a gain, 1 for a ratio), None if there is none.
    at_baseline: words for an interval that includes the baseline, e.g. "no use of that line is shown".
    averaged: whether it is the mean of a column. If not, the task computes it from all its rows (`Task.derived`).
    """

    name: str
    about: str
    unit: str
    better: Literal["higher", "lower", ""]
    interval: Literal["wilson", "bootstrap"] = "bootstrap"
    words: str = ""
    headline: bool = False
    chance: float | None = None
    baseline: float | None = None
    at_baseline: str = ""
    averaged: bool = True


@dataclass(frozen=True)
class Curve:
    """Measurement along the text: several rows per example, one per stretch of positions.

    start, stop: columns with the stretch [start, stop) in tokens before the predicted one.   metric: the column drawn.
    """

    start: str
    stop: str
    metric: str


@dataclass(frozen=True)
class TaskInfo:
    """Description of a task in a record, to read results without the package that the task came from.

    weight_column: the summary weighs rows by it; None: equal weights.   group_column: rows of one value are drawn
    together when intervals are resampled; None: those of one example.   key_columns: tell the rows of one example
    apart.
    """

    name: str
    about: str
    provider: str
    options: dict[str, Any]
    metrics: tuple[Metric, ...]
    weight_column: str | None = None
    group_column: str | None = None
    key_columns: tuple[str, ...] = ()
    curve: Curve | None = None

    @property
    def averages(self) -> tuple[Metric, ...]:
        """The metrics that are means of a column of the rows."""
        return tuple(metric for metric in self.metrics if metric.averaged)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "TaskInfo":
        """Read the output of `to_json`. Raises: ConfigError when it is something else."""
        try:
            metrics = tuple(Metric(**metric) for metric in fields["metrics"])
            curve = Curve(**fields["curve"]) if fields.get("curve") else None
            keys = tuple(fields.get("key_columns", ()))
            return cls(**{**fields, "metrics": metrics, "curve": curve, "key_columns": keys})
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"The record describes a task in a way that this version does not know ({error}). Evaluate again."
            ) from None


class Task(ABC):
    """A family of examples at any length.

    `suites` are the names under which `longlode evaluate --suite` takes it.
    Subclasses set the class fields and write `make` and `rows`; one that has settings takes them in `__init__` and
    names them in `options`. `evaluate` binds it to a tokenizer before it asks for examples.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    needs_texts: ClassVar[bool] = False
    suites: ClassVar[tuple[str, ...]] = ()
    weight_column: ClassVar[str | None] = None
    group_column: ClassVar[str | None] = None
    key_columns: ClassVar[tuple[str, ...]] = ()
    curve: ClassVar[Curve | None] = None

    encode: Encode
    """The tokenizer, which makes lengths token lengths. Set by `bound_to`."""
    texts: list[str]
    """The held-out texts. Set by `bound_to`."""

    def options(self) -> dict[str, Any]:
        """The settings that determine its examples, as JSON; two evaluations with equal options are comparable."""
        return {}

    def info(self) -> TaskInfo:
        """Description of the task for the record."""
        return TaskInfo(
            name=self.name,
            about=self.about,
            provider=package_of(type(self)),
            options=self.options(),
            metrics=self.metrics,
            weight_column=self.weight_column,
            group_column=self.group_column,
            key_columns=self.key_columns,
            curve=self.curve,
        )

    def bound_to(self, encode: Encode, texts: Sequence[str] = ()) -> Self:
        """A copy for one tokenizer and some held-out texts. Raises: ConfigError without texts where it needs some."""
        if self.needs_texts and not texts:
            raise ConfigError(
                f"task {self.name!r} has no texts. It measures held-out documents: pass some, or leave it out."
            )
        bound = copy.copy(self)
        bound.encode, bound.texts = encode, list(texts)
        bound.prepare()
        return bound

    def prepare(self) -> None:
        """Prepare once what all examples need from the tokenizer and the texts."""
        return

    def num_available(self, length: int, asked: int) -> int:
        """Number of different examples of `length`, at most `asked`."""
        return asked

    @abstractmethod
    def make(self, length: int, seed: int) -> Example:
        """Make one example of at most `length` tokens.

        Consecutive seeds cover evenly what the task varies (depths, texts); equal arguments and an
        equal tokenizer give an equal example.
        Raises: ConfigError when `length` is too short to hold the question.
        """

    @abstractmethod
    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """Turn the scores of one example into its rows.

        Each has a number for every metric that is averaged; by convention `hard` in [0, 1] and `smooth`.
        """

    def judge(self, example: Example, written: Sequence[str]) -> dict[str, Any]:
        """Turn what the model wrote after the prompt into columns, which are added to the example's one row.

        Args: written, one text or several samples. Called where `example.max_new_tokens` is more than 0.
        """
        raise NotImplementedError(
            f"{type(self).__name__} asks the model to write and has no `judge`; a task whose examples set "
            "max_new_tokens needs one."
        )

    def derived(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """The metrics that are no means of a column, from all the task's rows of one length.

        One that cannot be computed from these rows is left out.
        """
        return {}


_SECANTS = 4  # guesses by the estimated step alone


def largest_count(num_tokens: Callable[[int], int], limit: int) -> int:
    """The largest n >= 0 with num_tokens(n) <= limit, -1 if there is none; num_tokens grows about linearly.

    Bracketed secant steps: a handful of calls instead of the log2(limit) of plain bisection, since each call
    tokenizes a whole text.
    """
    base = num_tokens(0)
    if base > limit:
        return -1
    low, low_tokens = 0, base
    step = max(1, (num_tokens(8) - base) // 8)
    guess = max(1, (limit - base) // step)
    high: int | None = None
    turns = 0
    while high is None or high - low > 1:
        used = num_tokens(guess)
        if used <= limit:
            low, low_tokens = guess, used
        else:
            high = guess
        turns += 1
        ahead = low + max(1, (limit - low_tokens) // step)
        if high is None:
            guess = ahead if turns < _SECANTS else max(ahead, 2 * low)
        else:  # where the estimate of a step is bad, every other guess halves the bracket
            middle = turns > _SECANTS and turns % 2
            guess = (low + high) // 2 if middle else min(max(ahead, low + 1), high - 1)
    return low


def too_short(task: str, length: int, needed: int) -> ConfigError:
    """The error for a length that cannot hold the question."""
    return ConfigError(
        f"task {task!r} does not fit into {length} tokens: its question alone takes {needed} with this "
        f"tokenizer. Ask for a length of at least {needed + 16}."
    )
