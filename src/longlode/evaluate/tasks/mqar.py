"""Multi-query associative recall with the settings of Zoology (arXiv 2312.04927), also as training data.

A context of keys and values, then the keys again at even places whose gaps fall off by a power law; at each the value
is asked for. `multi_query_recall` makes the token rows for training; the task writes the same rows as numbers.
"""

import random

import numpy as np

from longlode.core.errors import ConfigError
from longlode.evaluate.tasks.generated import GeneratedTask, Question

PUBLIC = ((64, 4), (128, 8), (256, 16), (512, 64))  # length and pairs of Zoology's figure 2
VOCABULARY = 8192
_POWER = 0.01
_PAIR_LENGTH = 16  # tokens of a row per pair: that of PUBLIC but the last


def multi_query_recall(
    rng: np.random.Generator, *, length: int, pairs: int, vocabulary: int = VOCABULARY, power: float = _POWER
) -> tuple[np.ndarray, np.ndarray]:
    """One row: tokens and labels, both int64 `[length]`; a label is what follows its token, -100 where none is asked.

    Keys are of `1 .. vocabulary/2 - 1`, values of `vocabulary/2 .. vocabulary - 1`, none twice; 0 fills the rest. A
    query's gap number i (from 1) is drawn in proportion to `i ** (power - 1)`.
    Raises: ConfigError for an odd length, fewer than `4 * pairs` tokens, or a vocabulary that is not larger than both.
    """
    if length % 2 or 4 * pairs > length or vocabulary <= length:
        raise ConfigError(
            f"length {length}, pairs {pairs}, vocabulary {vocabulary}: expected an even length, at least 4 tokens per "
            "pair, and a vocabulary larger than the length."
        )
    keys = rng.choice(np.arange(1, vocabulary // 2), pairs, replace=False)
    values = rng.choice(np.arange(vocabulary // 2, vocabulary), pairs, replace=False)
    tokens, labels = np.zeros(length, np.int64), np.full(length, -100, np.int64)
    tokens[0 : 2 * pairs : 2], tokens[1 : 2 * pairs : 2] = keys, values
    space = (length - 2 * pairs) // 2
    odds = np.arange(1, space + 1, dtype=np.float64) ** (power - 1)
    gaps = rng.choice(space, pairs, replace=False, p=odds / odds.sum())
    places = 2 * pairs + 2 * gaps
    tokens[places], labels[places] = keys, values
    return tokens, labels


class MultiQueryRecall(GeneratedTask):
    """Values of keys that came before, every key asked for once."""

    name = "mqar"
    about = "the values of all keys of a list of number pairs, each asked for once"
    suites = ("recall",)

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` pairs; in text only the queries' order is kept, since a gap has nothing to say there."""
        tokens, labels = multi_query_recall(
            np.random.default_rng(rng.getrandbits(63)),
            length=_PAIR_LENGTH * size,
            pairs=size,
            vocabulary=max(VOCABULARY, 2 * _PAIR_LENGTH * size),
        )
        pairs = [f"{key} {value}" for key, value in tokens[: 2 * size].reshape(-1, 2)]
        (places,) = np.nonzero(labels != -100)
        asked, answers = tokens[places].tolist(), labels[places].tolist()
        return Question(
            "; ".join(pairs) + ";",
            f"\nAgain: {asked[0]}",
            tuple(map(str, answers)),
            tuple(f"; {key} " for key in asked[1:]),
            {"depth": None, "num_pairs": size},
        )
