"""Claim: the delta rule keeps a passkey for ever in noise that repeats, and loses it in prose.

python -m benchmarks.claims.passkey_far --work DIR --texts FOLDER [--seeds 1] [--save]
"""

import argparse
from typing import ClassVar

import numpy as np

from benchmarks.claims.frame import Claim, Finding, all_of, ordered, run
from benchmarks.claims.trained import cell, models_of, values
from benchmarks.mixers_accuracy import TextRows
from longlode.evaluate.bench import ROW_TASKS, BenchSettings, Rows, RowTask
from longlode.evaluate.bench.row_tasks import NOT_ASKED

CLAIM = Claim(
    "passkey_far",
    "A passkey far beyond the training length: kept in noise, lost in prose",
    "1.3B models, trained on 4,096 tokens, zero-shot: in noise that repeats DeltaNet finds the passkey at 97 to 99 % "
    "from 1,000 to 8,000 tokens (Mamba-2 falls to 30 %), in prose it falls from 98 to 14 %, Gated DeltaNet to 30 % "
    "(arXiv 2412.06464, table 2).",
    "Two layers of width 64, byte vocabulary, trained for 400 steps of 8 rows of 256 bytes on one passkey of three "
    "digits in a line that repeats, or in windows of books, and tested on each at 256 to 4,096 bytes, the passkey near "
    "the start. Share of digits right; chance is 0.10.",
    "The models are trained on the task, each in its own background; length alone is new to them.",
)
LENGTHS = (256, 1024, 4096)
MIXERS = ("delta_net", "gated_delta_net", "mamba2", "attention")
_LINE = b"The field is wide. The road is long. The wind is up. "
_BEFORE, _ASK = 1, 2  # bytes that no text has
_DIGITS = 3


class _Passkey(RowTask):
    """Three digits behind a mark in the first quarter of a background, asked for after another mark at the end."""

    about = "three digits, said once near the start of a background"
    vocabulary = 256
    chance = 0.1
    train_lengths = (256,)
    test_lengths = LENGTHS
    source = "RULER's single needle, as symbols"

    def background(self, rng: np.random.Generator, length: int, heldout: bool) -> np.ndarray:
        """`length` bytes."""
        raise NotImplementedError

    def row(self, rng: np.random.Generator, length: int, heldout: bool = False) -> tuple[np.ndarray, ...]:
        """The background with the digits put in; the last places are the question and the digits before each."""
        digits = rng.integers(48, 58, size=_DIGITS)
        tokens = self.background(rng, length, heldout)
        place = int(rng.integers(1, length // 4))
        tokens[place : place + 1 + _DIGITS] = [_BEFORE, *digits]
        tokens[-_DIGITS:] = [_ASK, *digits[:-1]]
        labels = np.full(length, NOT_ASKED, np.int64)
        labels[-_DIGITS:] = digits
        return tokens, labels

    def test_rows(self, rng: np.random.Generator, num: int, length: int) -> Rows:
        """A batch in held-out backgrounds."""
        parts = zip(*(self.row(rng, length, heldout=True) for _ in range(num)), strict=True)
        return Rows(*(np.stack(part) for part in parts))


class PasskeyInNoise(_Passkey):
    """The background is one line again and again."""

    name = "passkey_noise"

    def background(self, rng: np.random.Generator, length: int, heldout: bool) -> np.ndarray:
        """The line from a random place on."""
        start = int(rng.integers(len(_LINE)))
        return np.frombuffer((_LINE * (length // len(_LINE) + 2))[start:][:length], np.uint8).astype(np.int64)


class PasskeyInProse(_Passkey):
    """The background is a window of a text."""

    name = "passkey_prose"
    texts: ClassVar[TextRows]

    def background(self, rng: np.random.Generator, length: int, heldout: bool) -> np.ndarray:
        """A window of a file, held out for the test."""
        window = self.texts.row(rng, length, heldout)[0].copy()
        window[window < 3] = ord(" ")
        return window


def settings() -> BenchSettings:
    """Sizes and budget: as `text` of the mixers' table, more steps."""
    return BenchSettings(lr=1e-2, steps=400, batch_size=8, test_rows=64, parameters=64 * 256 + 120_000)


def find(options: argparse.Namespace) -> Finding:
    """Every mixer in both backgrounds. Raises: SystemExit without --texts."""
    if options.texts is None:
        raise SystemExit("This claim needs --texts FOLDER, a folder of text files.")
    PasskeyInProse.texts = ROW_TASKS["text"]()  # type: ignore[assignment]
    right = {}
    for kind in (PasskeyInNoise, PasskeyInProse):
        for mixer in MIXERS:
            found = models_of(options, kind(), mixer, settings())
            for length in LENGTHS:
                right[kind.name, mixer, length] = values(found, length)
    far = LENGTHS[-1]
    noise, prose = PasskeyInNoise.name, PasskeyInProse.name
    claims = {
        "DeltaNet over Mamba-2 in noise": (right[noise, "delta_net", far], right[noise, "mamba2", far]),
        "DeltaNet in noise over prose": (right[noise, "delta_net", far], right[prose, "delta_net", far]),
        "Gated DeltaNet over DeltaNet in prose": (
            right[prose, "gated_delta_net", far],
            right[prose, "delta_net", far],
        ),
    }
    verdicts = {what: ordered(*pair) for what, pair in claims.items()}
    seen = "; ".join(f"{what}: {verdict}" for what, verdict in verdicts.items())
    rows = [
        [f"`{mixer}`", *(cell(right[name, mixer, length]) for name in (noise, prose) for length in LENGTHS)]
        for mixer in MIXERS
    ]
    heads = ("mixer", *(f"{where}, {length:,}" for where in ("noise", "prose") for length in LENGTHS))
    figures = {f"{name} {mixer} {length}": numbers for (name, mixer, length), numbers in right.items()}
    return Finding(
        heads, rows, all_of(list(verdicts.values())), f"At {far:,} bytes, {seen}.", options.seeds, figures
    )


if __name__ == "__main__":
    run(CLAIM, find)
