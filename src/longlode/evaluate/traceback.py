"""Context traceback: the segments of a context that made a model give an answer.

The value of a set of segments is the log-probability of the answer after them and the question. Leave-one-out is what a
segment's removal costs; it misses facts that stand there twice. Shapley values share the value of the whole context
among the segments, by what each adds to those before it, over all orders. Source: Shapley 1953; for long contexts,
TracLLM (arXiv 2506.04202).
"""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longlode.core.errors import ConfigError
from longlode.evaluate.surprisal import SurprisalMeter, make_encode

_EXACT_SEGMENTS = 5  # 120 orders, and no more than 32 readings


@dataclass(frozen=True)
class Attribution:
    """The share of one segment in an answer, in nats of the answer's log-probability.

    leave_one_out: what the answer loses without this segment.   shapley: its Shapley value.
    error: standard error of that over the orders drawn; 0 where all orders were counted.
    """

    segment: int
    leave_one_out: float
    shapley: float
    error: float


def trace_answer(
    model: Any,
    tokenizer: Any,
    segments: Sequence[str],
    question: str,
    answer: str,
    *,
    num_orders: int = 32,
    seed: int = 0,
    batch_tokens: int = 16384,
) -> list[Attribution]:
    """Attribute an answer to the segments of its context.

    Args:
      model, tokenizer: a Hugging Face causal LM and its fast tokenizer.
      segments: the context, cut into parts that are joined as they are; their order is kept in every subset.
      question: what stands between the context and the answer; it must end where the answer's first token begins.
      answer: what the model said, or another text.
      num_orders: orders drawn for the Shapley values, half of them the reverse of the others; up to 5 segments all
        orders are counted instead.   seed: of the orders.
    Returns: one per segment, in order. The Shapley values sum to the log-probability of the answer after everything,
      less that after the question alone.
    Raises: ConfigError without segments, without an answer, or for fewer than two orders.
    """
    if not segments or not answer or num_orders < 2:
        raise ConfigError(
            f"{len(segments)} segments, an answer of {len(answer)} characters and {num_orders} orders were given; "
            "expected a segment, a character and two orders at least."
        )
    value = _Values(model, tokenizer, segments, question, answer, batch_tokens)
    everything = frozenset(range(len(segments)))
    orders = _orders(len(segments), num_orders, seed)
    needed = {frozenset(order[:size]) for order in orders for size in range(len(segments) + 1)}
    value.read([*needed, *(everything - {one} for one in everything)])
    gains = np.zeros((len(orders), len(segments)))
    for row, order in enumerate(orders):
        for size, one in enumerate(order):
            gains[row, one] = value.of[frozenset(order[: size + 1])] - value.of[frozenset(order[:size])]
    exact = len(orders) == math.factorial(len(segments))
    # An order and its reverse are one draw: their mean varies less than that of two independent orders.
    pairs = gains if exact else gains.reshape(-1, 2, len(segments)).mean(1)
    errors = np.zeros(len(segments)) if exact else pairs.std(0, ddof=1) / len(pairs) ** 0.5
    return [
        Attribution(
            one,
            value.of[everything] - value.of[everything - {one}],
            float(gains[:, one].mean()),
            float(errors[one]),
        )
        for one in range(len(segments))
    ]


def _orders(num: int, num_orders: int, seed: int) -> list[tuple[int, ...]]:
    if num <= _EXACT_SEGMENTS:
        return list(itertools.permutations(range(num)))
    rng = random.Random(seed)
    drawn = [tuple(rng.sample(range(num), num)) for _ in range(max(2, num_orders // 2))]
    return [order for one in drawn for order in (one, one[::-1])]


class _Values:
    """Log-probabilities of the answer after subsets of the segments, each read once."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        segments: Sequence[str],
        question: str,
        answer: str,
        batch_tokens: int,
    ) -> None:
        self.meter = SurprisalMeter(model, batch_tokens=batch_tokens)
        self.encode = make_encode(tokenizer)
        self.segments, self.question, self.answer = segments, question, answer
        self.of: dict[frozenset[int], float] = {}

    def read(self, subsets: Sequence[frozenset[int]]) -> None:
        """Read what has not been read yet."""
        new = [one for one in dict.fromkeys(subsets) if one not in self.of]
        rows, asked = [], []
        for subset in new:
            prompt = "".join(self.segments[one] for one in sorted(subset)) + self.question
            tokens = self.encode(prompt + self.answer)
            rows.append(tokens.ids)
            asked.append(tokens.positions(len(prompt), len(prompt) + len(self.answer)))
        if not all(len(one) for one in asked):
            raise ConfigError(
                "The answer has no token of its own where nothing stands before it; give a question before it."
            )
        for subset, (nats, _) in zip(new, self.meter.read(rows, asked), strict=True):
            self.of[subset] = -float(nats.sum())
