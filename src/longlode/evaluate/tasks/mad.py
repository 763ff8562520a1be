"""Tasks of MAD (arXiv 2403.17844) as text: fuzzy recall, noisy recall, selective copying.

Half of a vocabulary of 16 are keys (letters), half are values (digits). MAD's plain recall is `mqar` here. Its
compression and memorization test what training puts into one vector or into the weights, so they are no questions to
a model that is trained already.
"""

import random
import string

from longlode.evaluate.tasks.generated import GeneratedTask, Question, answer_metrics

KEYS = tuple(string.ascii_lowercase[:8])
VALUES = tuple(string.digits[:8])
NOISE = tuple(string.ascii_lowercase[8:24])
CONTENT = tuple(string.ascii_lowercase[:14])
MAX_MOTIF = 3
NOISE_SHARE = 0.2
NUM_COPIED = 16
_BLANK = "."
_NUM_ASKED = 8
_MOST_KEYS = 500  # of the 584 there are of up to three symbols
_SAME_VALUE = sum(len(VALUES) ** -length for length in range(1, MAX_MOTIF + 1)) / MAX_MOTIF**2


def motif(rng: random.Random, symbols: tuple[str, ...]) -> str:
    """One to three symbols."""
    return " ".join(rng.choices(symbols, k=rng.randint(1, MAX_MOTIF)))


class FuzzyRecall(GeneratedTask):
    """Values of keys, both of one to three symbols."""

    name = "fuzzy_recall"
    about = "the values of eight keys, where keys and values are one to three symbols long"
    suites = ("recall",)
    metrics = answer_metrics(_SAME_VALUE)

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` pairs; keys come again, with the same value, where there are more than 500."""
        known: dict[str, str] = {}
        while len(known) < min(size, _MOST_KEYS):
            known.setdefault(motif(rng, KEYS), f"{motif(rng, VALUES)};")
        keys = [*known, *rng.choices([*known], k=size - len(known))]
        rng.shuffle(keys)
        asked = rng.sample([*known], min(_NUM_ASKED, len(known)))
        return Question(
            " ".join(f"{key} {known[key]}" for key in keys),
            f"\nAgain: {asked[0]}",
            tuple(known[key] for key in asked),
            tuple(f" {key} " for key in asked[1:]),
            {"depth": None, "num_pairs": size},
        )


class NoisyRecall(GeneratedTask):
    """Values of keys, between symbols that mean nothing."""

    name = "noisy_recall"
    about = "the values of up to eight keys; a fifth of the text is symbols that mean nothing"
    suites = ("recall",)
    choices = VALUES

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` pairs; noise stands between pairs, never between a key and its value."""
        known = {key: rng.choice(VALUES) for key in KEYS}
        keys = rng.choices(KEYS, k=size)
        units = [f"{key} {known[key]}" for key in keys]
        units += rng.choices(NOISE, k=round(2 * size * NOISE_SHARE / (1 - NOISE_SHARE)))
        rng.shuffle(units)
        asked = sorted(set(keys))
        rng.shuffle(asked)
        return Question(
            " ".join(units),
            f"\nAgain: {asked[0]}",
            tuple(known[key] for key in asked),
            tuple(f" {key} " for key in asked[1:]),
            {"depth": None, "num_pairs": size},
        )


class SelectiveCopying(GeneratedTask):
    """Sixteen symbols among blanks, copied without the blanks."""

    name = "selective_copying"
    about = "sixteen symbols that stand among blanks, copied in order without the blanks"
    suites = ("recall",)
    choices = CONTENT

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` blanks."""
        symbols = rng.choices(CONTENT, k=NUM_COPIED)
        units = [_BLANK] * (size + NUM_COPIED)
        for place, symbol in zip(sorted(rng.sample(range(len(units)), NUM_COPIED)), symbols, strict=True):
            units[place] = symbol
        return Question(" ".join(units), " |", tuple(symbols), " ", {"depth": None, "num_blanks": size})
