"""A language model in twenty lines of numpy, and ones that go wrong; importable by spawned workers."""

import functools
import os
import signal
import time

import numpy as np

from longlode.mining.requests import PairReading
from longlode.mining.sampling import document_rng

VOCAB = 64
POISON = 63
"""The token that the faulty readers choke on; `random_text` never draws it."""


class CacheReader:
    """Tokens are the numbers in the text; a token is likelier the more often it stood before."""

    fingerprint = "cache-model"

    def __init__(self):
        self.alone_sizes: list[int] = []
        self.given_sizes: list[int] = []

    def encode(self, texts):
        return [[int(word) for word in text.split()] for text in texts]

    def alone(self, segments):
        self.alone_sizes.append(len(segments))
        return self._nll(segments, np.zeros((len(segments), VOCAB))), self._counts(segments)

    def given(self, states, sources, targets):
        self.given_sizes.append(len(targets))
        return self._nll(targets, states[sources])

    @staticmethod
    def _counts(segments):
        return np.stack([np.bincount(row, minlength=VOCAB) for row in segments]).astype(np.float64)

    @staticmethod
    def _nll(segments, counts):
        nll = np.empty((len(segments), segments.shape[1] - 1), dtype=np.float32)
        rows = np.arange(len(segments))
        counts = counts.copy()
        for place in range(segments.shape[1]):
            if place:
                chance = (counts[rows, segments[:, place]] + 0.5) / (counts.sum(1) + 0.5 * VOCAB)
                nll[:, place - 1] = -np.log(chance)
            counts[rows, segments[:, place]] += 1
        return nll


class ReadingOnReader(CacheReader):
    """Also reads on: its state is the counts of all that it has read."""

    def continued(self, states, sources, segments):
        return self._nll(segments, states[sources]), states[sources] + self._counts(segments)


class SlowReader(CacheReader):
    """Takes a while for every batch."""

    def alone(self, segments):
        time.sleep(0.1)
        return super().alone(segments)


class FaultyReader(CacheReader):
    """Does `fault` when a segment holds POISON: "raise", "nan", "die", "stop" or "hang"."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def alone(self, segments):
        nll, states = super().alone(segments)
        if (segments == POISON).any():
            if self.fault == "raise":
                raise ValueError("a token that\nthis model cannot read")
            if self.fault == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(3600)  # another thread may take the signal, and this one go on for a moment
            if self.fault == "hang":
                time.sleep(3600)
            nll[(segments == POISON).any(axis=1), 0] = np.nan
        return nll, states


class SmallMemoryReader(ReadingOnReader):
    """Runs out of memory above `limit` rows in a call."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def _fit(self, count):
        if count > self.limit:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def alone(self, segments):
        self._fit(len(segments))
        return super().alone(segments)

    def given(self, states, sources, targets):
        self._fit(len(targets))
        return super().given(states, sources, targets)

    def continued(self, states, sources, segments):
        self._fit(len(segments))
        return super().continued(states, sources, segments)


class BrokenReader(CacheReader):
    """A device that is gone: nothing works any more."""

    def alone(self, segments):
        raise RuntimeError("device lost")


def pair_reading(pairs, alone, given):
    """What a reader would have given for pairs (targets, sources)."""
    return PairReading(*pairs, alone, given, np.arange(len(alone)))


def make_reader():
    return CacheReader()


def make_faulty(fault):
    return functools.partial(FaultyReader, fault)


def make_nothing():
    raise OSError("no such model")


def random_text(name, num_tokens, *, vocab=VOCAB - 1):
    rng = document_rng(0, name, "", "test text")
    return " ".join(map(str, rng.integers(0, vocab, num_tokens)))


def records(count, *, num_tokens=120):
    return [
        {"id": f"doc-{n:03d}", "text": random_text(f"doc-{n:03d}", num_tokens + 7 * n), "lang": "xx", "n": n}
        for n in range(count)
    ]


def corpus_rows():
    """18 records of two sources and three lengths, and three that no scorer takes: too short, an id again, no text."""
    docs = []
    for n in range(18):
        name = f"doc-{n:02d}"
        docs.append(
            {
                "id": name,
                "source": "even" if n % 2 == 0 else "odd",
                "text": random_text(name, (40, 70, 150)[n % 3] + n),
                "tags": {"n": n},
            }
        )
    docs.append({"id": "tiny", "text": "1 2 3"})
    docs.append(docs[4] | {"text": random_text("other", 60)})  # an id again
    docs.append({"id": "mute"})
    return docs
