"""A tiny run: 2 layers, 24 tokens, and data that is a pure function of the step."""

import numpy as np
import pytest

from longlode.core.batch import Batch
from longlode.train import Recipe, build_model

VOCAB_SIZE = 24
LENGTH = 16
ROWS = 4


class TinyRun:
    """A recipe and its data; a token mostly fixes the next one, so that there is something to learn."""

    fingerprint = "tiny data"

    def recipe(self, *overrides, mixers="D*2"):
        values = {
            "model": {
                "mixers": mixers,
                "hidden_size": 16,
                "num_heads": 2,
                "intermediate_size": 32,
                "window": 8,
            },
            "data": {"length": LENGTH, "batch_size": ROWS},
            "optim": {"lr": 0.01, "warmup_steps": 2},
            "run": {"steps": 10, "checkpoint_every": 5, "threads": 1},
        }
        return Recipe.parse(values, list(overrides))

    def model(self, recipe):
        return build_model(recipe, VOCAB_SIZE)

    def batch(self, step, packed=False):
        rng = np.random.default_rng(step)
        tokens = rng.integers(0, VOCAB_SIZE, (ROWS, LENGTH + 1))
        for t in range(LENGTH):
            follows = (5 * tokens[:, t] + 1) % VOCAB_SIZE
            tokens[:, t + 1] = np.where(rng.random(ROWS) < 0.8, follows, tokens[:, t + 1])
        labels = tokens[:, 1:].copy()
        labels[0, : LENGTH // 2 + step % 3] = -100
        if not packed:
            return Batch(tokens[:, :-1].copy(), labels)
        edges = np.array([0, 9, 13, 40, ROWS * LENGTH], dtype=np.int32)
        labels = labels.reshape(1, -1)
        labels[0, edges[1:] - 1] = -100
        return Batch(tokens[:, :-1].reshape(1, -1).copy(), labels, edges)

    def batches(self, step):
        while True:
            yield self.batch(step)
            step += 1

    def packed_batches(self, step):
        while True:
            yield self.batch(step, packed=True)
            step += 1

    def heldout(self):
        return [self.batch(10_000), self.batch(10_001)]


@pytest.fixture
def tiny():
    return TinyRun()
