"""Words and pairs that carry the far gain of a document, each with a place where it returns and the one before.

The contributions of all words and pairs add up to the mean gain per octave. Words that were expected in the far context
and did not occur there contribute a negative amount.
"""

from dataclasses import dataclass

import numpy as np

from longlode.mining.distance_profile.control import Control
from longlode.mining.distance_profile.profile import OCTAVES, octave_gains


@dataclass(frozen=True)
class Return:
    """A return of an item: words `before` and `again`, the first of a pair; distance in tokens."""

    before: int
    again: int
    distance_tokens: int


@dataclass(frozen=True)
class Carrier:
    """One word, or pair of neighbouring words.

    kinds: its type, or both. gain_nats: its contribution to the mean gain per octave, nats per token. num_returns: uses
    whose previous one is 1,024 tokens back or more; returns: a few of them, the furthest first.
    """

    kinds: tuple[int, ...]
    gain_nats: float
    num_returns: int
    returns: tuple[Return, ...]


def carriers(
    kinds: np.ndarray, control: Control, *, per_word: float, top: int, shown: int = 2
) -> list[Carrier]:
    """The `top` items that add most to the gain, the largest first; only those that add something.

    Args: kinds, control, per_word: as of `distance_profile`. shown: returns of each.
    """
    number = int(kinds.max(initial=0)) + 1
    found = list(octave_gains(kinds, control, per_word=per_word, octaves=OCTAVES))
    if not found:
        return []
    items, shares = [], []
    for gains in found:
        first = kinds[gains.place - gains.is_pair].astype(np.int64)
        # Pairs are numbered above all words: the first word + 1 in units of `number`.
        items.append(np.where(gains.is_pair, (first + 1) * number, 0) + kinds[gains.place])
        shares.append(gains.value / (float(gains.exposure.sum()) * per_word * len(found)))
    item, place = np.unique(np.concatenate(items), return_inverse=True)
    total = np.bincount(place.reshape(-1), weights=np.concatenate(shares), minlength=len(item))
    best = np.argsort(-total, kind="stable")[:top]
    return [
        _carrier(kinds, int(item[row]), number, float(total[row]), per_word, shown)
        for row in best
        if total[row] > 0
    ]


def _carrier(kinds: np.ndarray, item: int, number: int, gain: float, per_word: float, shown: int) -> Carrier:
    if item < number:
        names: tuple[int, ...] = (item,)
        at = np.flatnonzero(kinds == item)
    else:
        names = (item // number - 1, item % number)
        at = np.flatnonzero((kinds[:-1] == names[0]) & (kinds[1:] == names[1]))
    gaps = np.diff(at) * per_word
    far = np.flatnonzero(gaps >= OCTAVES[0])
    chosen = far[np.argsort(-gaps[far], kind="stable")[:shown]]
    returns = (Return(int(at[k]), int(at[k + 1]), round(float(gaps[k]))) for k in chosen)
    return Carrier(names, gain, len(far), tuple(returns))
