"""The rows and the arithmetic of the benchmark of state size against passkey length."""

import numpy as np
import pytest

from benchmarks.state_capacity import PasskeyRows, recalled_lengths
from longlode.evaluate.bench.row_tasks import NOT_ASKED


@pytest.mark.parametrize("length", [48, 64, 256])
def test_a_passkey_is_said_once_and_asked_for_at_the_end(length):
    rng = np.random.default_rng()
    rows = PasskeyRows().rows(rng, 20, length)
    depths = set()
    for tokens, labels in zip(rows.tokens.tolist(), rows.labels.tolist(), strict=True):
        assert len(tokens) == len(labels) == length
        asked = [t for t in range(length) if labels[t] != NOT_ASKED]
        assert asked == list(range(length - 10, length, 2))
        said = [t for t in range(length - 10) if 10 <= tokens[t] < 15]
        assert [tokens[t] for t in said] == [tokens[t] for t in asked] == [10, 11, 12, 13, 14]
        assert [tokens[t + 1] for t in said] == [labels[t] for t in asked]
        assert all(tokens[t + 1] == labels[t] < 10 for t in asked)
        assert all(
            15 <= tokens[t] < PasskeyRows.vocabulary
            for t in range(length - 10)
            if t - said[0] not in range(10)
        )
        depths.add(said[0])
    assert len(depths) > 3


def test_the_recalled_length_ends_at_the_first_that_is_not_recalled():
    def row(mixer, size, length, accuracy):
        return {"mixer": mixer, "state_numbers": size, "length": length, "accuracy": accuracy}

    rows = [row("a", 8, 64, 1.0), row("a", 8, 128, 0.95), row("a", 8, 256, 0.9), row("a", 8, 512, 1.0)]
    rows += [row("b", 8, 64, 0.94), row("b", 8, 128, 1.0), row("a", 16, 64, 1.0)]
    assert recalled_lengths(rows) == {("a", 8): 128, ("b", 8): 0, ("a", 16): 64}
