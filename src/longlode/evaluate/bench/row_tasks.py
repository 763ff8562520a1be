"""Tasks of symbols for training from scratch: batches of token rows with the places that are scored.

Training and test rows come from one generator with different seeds; a batch has one length. What differs from the
published settings is said by each task; models are far smaller than most published ones.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from longlode.core.fingerprints import fingerprint
from longlode.evaluate.tasks.joint_recall import joint_recall_row
from longlode.evaluate.tasks.listops import OPERATORS, tree
from longlode.evaluate.tasks.mqar import multi_query_recall
from longlode.evaluate.tasks.regular_languages import NUM_STRINGS, SYMBOLS, random_automaton, string_lengths
from longlode.evaluate.tasks.state_tracking import MODULUS, arithmetic_row, parity_row

NOT_ASKED = -100


@dataclass(frozen=True)
class Rows:
    """A batch.

    tokens: int64 `[B, T]`.   labels: int64 `[B, T]`, what follows each token, -100 where nothing is asked.
    allowed: bool `[B, T, vocabulary]`, the answers that count as right, for tasks with several; None: the label alone.
    """

    tokens: np.ndarray
    labels: np.ndarray
    allowed: np.ndarray | None = None


class RowTask(ABC):
    """A task of symbols.

    name, about: as of a task.   vocabulary: number of symbols.   chance: share right of a model that guesses.
    train_lengths, test_lengths: tokens per row; each training batch has one of the former, drawn anew.
    source: where the settings come from, and what differs.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    vocabulary: ClassVar[int]
    chance: ClassVar[float]
    train_lengths: ClassVar[Sequence[int]]
    test_lengths: ClassVar[Sequence[int]]
    source: ClassVar[str]

    @abstractmethod
    def row(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
        """One row: tokens, labels, and where several answers are right what is allowed; `length` tokens or fewer.

        All rows of a length have equally many tokens.
        """

    def rows(self, rng: np.random.Generator, num: int, length: int) -> Rows:
        """A batch of `num` rows."""
        parts = list(zip(*(self.row(rng, length) for _ in range(num)), strict=True))
        return Rows(*(np.stack(part) for part in parts))

    def identity(self) -> dict[str, Any]:
        """Sizes of the task, and a fingerprint of some of its rows: other ones make it another task of its name."""
        rng = np.random.default_rng(0)
        drawn = [self.rows(rng, 2, length) for length in (self.train_lengths[0], self.test_lengths[-1])]
        return {
            "vocabulary": int(self.vocabulary),
            "train_lengths": [int(length) for length in self.train_lengths],
            "test_lengths": [int(length) for length in self.test_lengths],
            "rows_fingerprint": fingerprint([[rows.tokens.tolist(), rows.labels.tolist()] for rows in drawn]),
        }

    def decoder(self, hidden_size: int) -> Any:
        """A network from hidden states `[B, T, hidden_size]` to logits `[B, T, vocabulary]`; None: the model's head."""
        return None

    def test_rows(self, rng: np.random.Generator, num: int, length: int) -> Rows:
        """A batch to test on; tasks that draw from a fixed store of texts keep some of it for the test alone."""
        return self.rows(rng, num, length)


class _Recall(RowTask):
    source = (
        "Zoology (arXiv 2312.04927): 8,192 symbols and 100,000 fixed rows there, twice as many symbols as tokens and "
        "fresh rows here"
    )

    def row(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
        """One row with a pair per 16 tokens."""
        return multi_query_recall(rng, length=length, pairs=length // 16, vocabulary=self.vocabulary)


class RecallSmall(_Recall):
    """MQAR of 64 tokens and 4 pairs."""

    name = "mqar"
    about = "values of 4 keys in 64 tokens"
    vocabulary = 128
    chance = 1 / 64  # a value, but any of them
    train_lengths = test_lengths = (64,)


class RecallMiddle(_Recall):
    """MQAR of 128 tokens and 8 pairs."""

    name = "mqar_128"
    about = "values of 8 keys in 128 tokens"
    vocabulary = 256
    chance = 1 / 128  # a value, but any of them
    train_lengths = test_lengths = (128,)


class RecallLarge(_Recall):
    """MQAR of 256 tokens and 16 pairs."""

    name = "mqar_256"
    about = "values of 16 keys in 256 tokens"
    vocabulary = 512
    chance = 1 / 256  # a value, but any of them
    train_lengths = test_lengths = (256,)


class Overwrite(RowTask):
    """The last of several values of each key."""

    name = "overwrite"
    about = "the last value of each of 4 keys that were all given several"
    vocabulary = 64
    chance = 1 / 32
    train_lengths = test_lengths = (64,)
    source = (
        "made for this table: a sum without removal keeps all values of a key, the delta rule replaces them"
    )
    _KEYS = 4

    def row(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
        """Writes of (key, value), every key at least twice, then the four keys, each asked for once."""
        num = length // 2 - self._KEYS
        keys = rng.choice(np.arange(1, self.vocabulary // 2), self._KEYS, replace=False)
        order = np.concatenate([np.repeat(keys, 2), rng.choice(keys, num - 2 * self._KEYS)])
        rng.shuffle(order)
        values = rng.integers(self.vocabulary // 2, self.vocabulary, size=num)
        last = dict(
            zip(order.tolist(), values.tolist(), strict=True)
        )  # a later write replaces an earlier one
        asked = rng.permutation(keys)
        answers = np.array([last[key] for key in asked.tolist()])
        pairs = np.stack([np.concatenate([order, asked]), np.concatenate([values, answers])], axis=1)
        labels = np.full(length, NOT_ASKED, np.int64)
        labels[2 * num :: 2] = answers
        return pairs.reshape(-1).astype(np.int64), labels


class JointRecallRows(RowTask):
    """Values of keys in groups."""

    name = "joint_recall"
    about = "values of 4 keys, each with another value in either of 2 groups"
    vocabulary = 49
    chance = 1 / 16  # about a half for a model that keeps keys without groups
    train_lengths = test_lengths = (42,)
    source = "HAX (arXiv 2507.00449), at a size that small models learn in some 15,000 rows"

    def row(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
        """Two groups of four keys, and all eight values asked for: 42 tokens."""
        return joint_recall_row(rng, groups=2, keys=4, asked=8, vocabulary=self.vocabulary)


class ParityRows(RowTask):
    """Parity of all bits so far, longer than trained on."""

    name = "parity"
    about = "parity of all bits up to and with each, at 40 to 256 bits after training on 3 to 40"
    vocabulary = 2
    chance = 0.5
    train_lengths = tuple(range(3, 41))
    test_lengths = (40, 128, 256)
    source = "arXiv 2411.12537"

    def row(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
        """Bits."""
        return parity_row(rng, length)


class ArithmeticRows(RowTask):
    """Values modulo five, longer than trained on."""

    name = "modular_arithmetic"
    about = "an expression of sums and products modulo five, at 40 to 256 tokens after training on 4 to 40"
    vocabulary = MODULUS + 4
    chance = 0.2
    train_lengths = tuple(range(4, 41, 2))
    test_lengths = (40, 128, 256)
    source = "arXiv 2411.12537, without brackets"

    def row(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
        """An expression of `length / 2` digits."""
        return arithmetic_row(rng, length // 2)


class LanguageRows(RowTask):
    """Next symbols of a language that the row itself shows."""

    name = "in_context_language"
    about = "a legal next symbol of a random language, after 128 symbols of its strings or more"
    vocabulary = len(SYMBOLS) + 1
    chance = 2 / len(SYMBOLS)  # a state has one to three ways on
    train_lengths = test_lengths = (256,)
    source = (
        "RegBench (arXiv 2401.12973): a new language per row, 256 of its symbols; any legal symbol is right"
    )

    def row(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
        """Strings with separators, cut at the length; symbols of the second half are scored."""
        drawn = random.Random(int(rng.integers(2**62)))
        automaton = random_automaton(drawn)
        tokens: list[int] = []
        legal: list[set[int]] = []
        while len(tokens) < length + 1:
            for size in string_lengths(drawn, NUM_STRINGS[0]):
                state = 0
                for symbol in automaton.walk(drawn, size):
                    tokens.append(SYMBOLS.index(symbol))
                    legal.append({SYMBOLS.index(one) for one in automaton.edges[state]})
                    state = automaton.edges[state][symbol]
                tokens.append(len(SYMBOLS))
                legal.append(set())
        labels = np.array(tokens[1 : length + 1])
        allowed = np.zeros((length, self.vocabulary), dtype=bool)
        for place, options in enumerate(legal[1 : length + 1]):
            allowed[place, list(options)] = True
        # The end of a string cannot be known, and is not scored.
        asked = (labels != len(SYMBOLS)) & (np.arange(length) >= length // 2)
        return np.array(tokens[:length]), np.where(asked, labels, NOT_ASKED), allowed


class ListOpsRows(RowTask):
    """Values of nested expressions."""

    name = "listops"
    about = "the digit that a nested expression of about 48 digits comes to"
    vocabulary = 10 + len(OPERATORS) + 3
    chance = 0.1
    train_lengths = test_lengths = (160,)
    source = "Long Range Arena (arXiv 2011.04006) has 500 to 2,000 tokens; about 48 digits here, filled at the left"

    def row(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
        """An expression, filled at its left to the length, and an equals sign, where its value is asked for."""
        names = {**{str(digit): digit for digit in range(10)}, "]": 10}
        names |= {f"[{operator}": 11 + number for number, operator in enumerate(OPERATORS)}
        while True:
            root = tree(random.Random(int(rng.integers(2**62))), 48)
            parts = [names[part] for part in root.text().split()]
            if len(parts) < length:
                break
        blank, equals = self.vocabulary - 1, self.vocabulary - 2
        tokens = np.full(length, blank, np.int64)
        tokens[length - 1 - len(parts) :] = [*parts, equals]
        labels = np.full(length, NOT_ASKED, np.int64)
        labels[-1] = root.value()
        return tokens, labels
