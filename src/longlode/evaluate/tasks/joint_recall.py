"""Joint recall (arXiv 2507.00449): the value of a key depends on the group that both stand in.

Plain associative recall binds a key to one value. Here every key has another value in every group, so a state that
stores keys alone gives some value of that key: right once in as many as there are groups.
"""

import random

import numpy as np

from longlode.evaluate.tasks.generated import GeneratedTask, Question, answer_metrics
from longlode.evaluate.tasks.words import NOUNS, distinct_words

NUM_GROUPS = 4
_NUM_ASKED = 4


def joint_recall_row(
    rng: np.random.Generator, *, groups: int, keys: int, asked: int, vocabulary: int
) -> tuple[np.ndarray, np.ndarray]:
    """One training row: per group its name, then its keys and values; then group, key and value of `asked` pairs.

    Groups, keys and values have a third of the vocabulary each; 0 is left free.
    Returns: tokens and labels, int64 `[groups * (1 + 2 * keys) + 3 * asked]`; the label at an asked key is the value
      that follows it, every other label -100.
    """
    third = (vocabulary - 1) // 3
    names = 1 + rng.choice(third, groups, replace=False)
    key_names = 1 + third + rng.choice(third, keys, replace=False)
    values = 1 + 2 * third + rng.integers(third, size=(groups, keys))
    parts = []
    for group in range(groups):
        order = rng.permutation(keys)
        pairs = np.stack([key_names[order], values[group, order]], axis=1)
        parts += [names[[group]], pairs.reshape(-1)]
    drawn = rng.choice(groups * keys, asked, replace=False)
    rows, columns = np.divmod(drawn, keys)
    queries = np.stack([names[rows], key_names[columns], values[rows, columns]], axis=1)
    tokens = np.concatenate([*parts, queries.reshape(-1)]).astype(np.int64)
    labels = np.full(len(tokens), -100, np.int64)
    labels[len(tokens) - 3 * asked + 1 :: 3] = queries[:, 2]
    return tokens, labels


class JointRecall(GeneratedTask):
    """Values of a key in a group, where every key stands in every group."""

    name = "joint_recall"
    about = "the word that one of four lists has for a key that all lists have"
    suites = ("recall",)
    metrics = answer_metrics(1 / len(NOUNS))
    largest = 29_000

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` keys in each of four groups; four pairs of a group and a key are asked for."""
        lists = rng.sample(NOUNS, NUM_GROUPS)
        keys = distinct_words(rng, size)
        kept = {(one, key): rng.choice(NOUNS) for one in lists for key in keys}
        lines = []
        for one in lists:
            order = rng.sample(keys, size)
            lines.append(f"{one}: " + ", ".join(f"{key} = {kept[one, key]}" for key in order) + ".")
        asked = rng.sample(sorted(kept), min(_NUM_ASKED, len(kept)))
        joints = tuple(f"; {one}: {key} = " for one, key in asked[1:])
        ask = f"Again: {asked[0][0]}: {asked[0][1]} ="
        answers = tuple(kept[pair] for pair in asked)
        return Question("\n".join(lines) + "\n", ask, answers, joints, {"depth": None, "num_keys": size})
