"""What `benchmarks.claims.mining` measures of a model: losses of held-out text by context, and two tasks of memory.

All arms are asked the same: the same targets of the same windows, the same questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch

from benchmarks.context_curve import Windows
from longlode.core.errors import ConfigError
from longlode.core.fingerprints import fingerprint
from longlode.evaluate.surprisal import SurprisalMeter, losses_after
from longlode.evaluate.tasks import TASKS
from longlode.evaluate.tasks.base import Task

CONTEXTS = (256, 1024, 4096)
"""Tokens of context before the targets."""
TASK_NAMES = ("verbatim_memory", "recall")
TASK_TOKENS = 1024
_BATCH_TOKENS = 1 << 14


@dataclass(frozen=True, eq=False)
class Questions:
    """Texts of a task as token ids, and the positions of the tokens of the answers."""

    rows: list[list[int]]
    asked: list[np.ndarray]


@dataclass(frozen=True, eq=False)
class Held:
    """The held-out material: windows by kind of text, questions by task."""

    windows: Mapping[str, Windows]
    questions: Mapping[str, Questions]

    @cached_property
    def fingerprint(self) -> str:
        """Name of all that is asked."""
        windows = {kind: [part.rows.tolist(), part.targets] for kind, part in self.windows.items()}
        questions = {
            name: [part.rows, [at.tolist() for at in part.asked]] for name, part in self.questions.items()
        }
        return fingerprint({"windows": windows, "questions": questions, "contexts": CONTEXTS})


@dataclass(frozen=True, eq=False)
class Measured:
    """Per kind nats per token, float64 `[windows, len(CONTEXTS)]`; per task log-probability of the answer's tokens and
    share of them that greedy decoding would write, float64 `[questions, 2]`.
    """

    losses: dict[str, np.ndarray]
    tasks: dict[str, np.ndarray]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "losses": {kind: part.tolist() for kind, part in self.losses.items()},
            "tasks": {name: part.tolist() for name, part in self.tasks.items()},
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Self:
        """From what `to_json` made."""
        losses, tasks = (
            {key: np.array(part) for key, part in saved[name].items()} for name in ("losses", "tasks")
        )
        return cls(losses, tasks)


def make_questions(
    names: Sequence[str], encode: Any, *, count: int, num_tokens: int = TASK_TOKENS
) -> dict[str, Questions]:
    """So many questions of each task. Args: encode, text -> Tokens, as of `longlode.evaluate.surprisal.make_encode`.

    Raises: ConfigError for a question whose answer lies beyond `num_tokens`.
    """
    found = {}
    for name in names:
        task: Task = TASKS.get(name)().bound_to(encode, ())
        rows, asked = [], []
        for number in range(count):
            example = task.make(num_tokens, number)
            tokens = task.encode(example.text).first(num_tokens)
            at = np.concatenate([tokens.positions(*span) for span in example.answer_spans])
            if not len(at):
                raise ConfigError(
                    f"{name}, question {number}: no token of the answer is within {num_tokens}."
                )
            rows.append(tokens.ids)
            asked.append(at)
        found[name] = Questions(rows, asked)
    return found


def measure(model: Any, held: Held) -> Measured:
    """Read all windows and questions. Args: model, a causal language model of transformers; products in bfloat16."""
    meter = SurprisalMeter(model, batch_tokens=_BATCH_TOKENS)
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        losses = {
            kind: losses_after(meter, part.rows.tolist(), CONTEXTS, part.targets)
            for kind, part in held.windows.items()
        }
        tasks = {
            name: np.array([(-nats.mean(), hits.mean()) for nats, hits in meter.read(part.rows, part.asked)])
            for name, part in held.questions.items()
        }
    return Measured(losses, tasks)
