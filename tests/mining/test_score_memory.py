"""The coherence score of a long document in bounded memory, block by block, with the same numbers."""

import tracemalloc

import numpy as np
import pytest

from longlode.mining.coherence import features as coherence
from longlode.mining.coherence import order
from longlode.mining.coherence.announcements import announcements
from longlode.mining.coherence.features import CountedWords, Measurements
from longlode.mining.scorers.order import order_score


def long_document(num_tokens, num_words):
    """Tokens and words of a text whose commonest types are far more frequent than the others."""
    rng = np.random.default_rng(5)
    tokens = np.minimum(rng.zipf(1.3, num_tokens), 30_000).astype(np.int32)
    kinds = np.unique(np.minimum(rng.zipf(1.2, num_words), 40_000), return_inverse=True)[1].astype(np.int32)
    shares = np.maximum(np.exp(-np.arange(kinds.max() + 1) / 200.0), 1e-3)
    return tokens, CountedWords(kinds, shares)


def peak_bytes(tokens, words):
    """Bytes that measuring takes beside what it was given."""
    tracemalloc.start()
    try:
        Measurements(tokens, words)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_long_document_takes_few_bytes_per_token():
    tokens, words = long_document(6_000_000, 3_500_000)
    assert peak_bytes(tokens, words) < 40 * len(tokens)


def test_a_document_of_one_type_takes_few_bytes_per_token():
    tokens = np.zeros(4_000_000, dtype=np.int32)
    assert peak_bytes(tokens, CountedWords(np.zeros(1, dtype=np.int32), np.full(1, 1e-3))) < 40 * len(tokens)


@pytest.mark.parametrize("block", [1, 97, 4096])
def test_blocks_change_no_bit(block, monkeypatch):
    size = 600 if block == 1 else 20_000
    tokens, words = long_document(size, size // 2)
    whole = Measurements(tokens, words).values
    seam = coherence.weakest_seam(words)
    monkeypatch.setattr(order, "_BLOCK", block)
    monkeypatch.setattr(coherence, "_BLOCK_WORDS", block)
    for name, values in Measurements(tokens, words).values.items():
        np.testing.assert_array_equal(values, whole[name], err_msg=name)
    assert coherence.weakest_seam(words) == seam


def test_the_words_that_explain_a_long_document_take_few_bytes_per_token():
    tokens, _ = long_document(4_000_000, 10)
    tracemalloc.start()
    try:
        assert announcements(tokens, near=192, span=1024, top=5)
        order_score(tokens)
        assert tracemalloc.get_traced_memory()[1] < 48 * len(tokens)
    finally:
        tracemalloc.stop()
