"""Distance profile: the gain from context at each octave of distance beyond all nearer context, nats per token.

A far passage helps to predict a token if the token's item (a word, or a pair of neighbouring words) occurs there and
nowhere nearer. With last occurrence g tokens back (infinite if there is none), for the octave [d, 2d):

    at risk_t   g_t >= d                              nothing nearer announces the item
    hit_t       d <= g_t < 2d
    exposure_t  min(t, 2d) - d, as a share of d       how much of the octave lies inside the document

    gain(d) = sum_t w_t (hit_t - expected_t) [at risk_t] / sum_t exposure_t

w_t is the information of the item, nats; expected_t the chance that as much unrelated text of the kind holds it
(`control.ForeignControl`), or that the document's own rate puts it there (`control.OwnControl`). The denominator counts
all tokens, so that octaves do not disturb each other: a dependency at one distance leaves the others as they were.
Words and pairs are summed: names and terms come back as words, phrases and references as pairs.

Distances are in tokens of 4 bytes of UTF-8 at the document's mean bytes per word, about what common tokenizers make of
it, so no tokenizer is needed. Cost: two sorts, and ten array operations per octave; no model.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from longlode.core.errors import ConfigError
from longlode.mining.baselines import estimated_tokens
from longlode.mining.coherence.order import Occurrences, stable_order
from longlode.mining.distance_profile.control import Control

OCTAVES = tuple(1024 << k for k in range(7))
"""Starts of the columns' octaves in tokens: 1k-2k to 64k-128k."""
REFERENCE = 512
"""The octave before them: a dependency length is measured against its gain."""
NUM_BLOCKS = 16
PAYS = 0.25
"""An octave counts if its gain is this share of the reference octave's, and two standard errors above 0."""
LEAST_EXPOSURE = 0.25
"""An octave is measured if the document extends at least this share of its width into it."""
STEADY_TOKENS = 2048
"""Exposure at which half of a mean gain counts, by measurement (docs/experiments/profile.md)."""
_NEVER = np.iinfo(np.int64).max // 4
"""Gap in words of what did not occur before."""


@dataclass(frozen=True)
class Octave:
    """Gain of one octave of distance.

    first_tokens: its start; it ends at twice that. gain_nats: per token; error_nats: standard error over
    NUM_BLOCKS stretches of the document. exposure_tokens: tokens of the document that had the octave before them.
    """

    first_tokens: int
    gain_nats: float
    error_nats: float
    exposure_tokens: float

    @property
    def certain(self) -> bool:
        """True if the gain is more than two standard errors."""
        return self.gain_nats > 2 * self.error_nats


@dataclass(frozen=True)
class Profile:
    """The octaves that the document is long enough for, nearest first.

    control: name of the subtracted control, `foreign:<language>` or `own`. reference_nats: gain of the octave before
    the first. num_tokens: length of the document.
    """

    octaves: tuple[Octave, ...]
    reference_nats: float
    control: str
    num_tokens: float = np.inf

    @property
    def mean_nats(self) -> float | None:
        """Mean gain per octave, nats per token. None for a document too short for any."""
        if not self.octaves:
            return None
        return float(np.mean([octave.gain_nats for octave in self.octaves]))

    @property
    def evidence(self) -> float:
        """Factor in [0, 1) by which the mean is held back towards 0 for ranking: E / (E + STEADY_TOKENS).

        E, exposure of all octaves. The mean of a short document says little of what its work gains at length, and the
        greatest of many such means are accidents.
        """
        exposure = sum(octave.exposure_tokens for octave in self.octaves)
        return exposure / (exposure + STEADY_TOKENS)

    @property
    def error_nats(self) -> float | None:
        """Standard error of `mean_nats`, octaves taken as dependent (errors add up)."""
        return float(np.mean([octave.error_nats for octave in self.octaves])) if self.octaves else None

    @property
    def dependency_tokens(self) -> int:
        """Dependency length: the distance up to which every octave counts (PAYS); 0 if the first does not."""
        length = 0
        for octave in self.octaves:
            if not octave.certain or octave.gain_nats < PAYS * self.reference_nats:
                break
            length = round(min(2 * octave.first_tokens, self.num_tokens))
        return length


@dataclass(frozen=True, eq=False)
class Gains:
    """Contributions to one octave.

    first_tokens: its start. place: int `[m]`, numbers of words; value: float64 `[m]`, nats; is_pair: bool `[m]`,
    whether it is of the pair that ends there; exposure: float64 `[n]`, of each word of the document, [0, 1].
    """

    first_tokens: int
    place: np.ndarray
    value: np.ndarray
    is_pair: np.ndarray
    exposure: np.ndarray


def tokens_per_word(text: str, num_words: int) -> float:
    """Tokens of 4 bytes per word of the text."""
    return max(estimated_tokens(text) / max(1, num_words), 1e-9)


def distance_profile(kinds: np.ndarray, control: Control, *, per_word: float) -> Profile:
    """Measure a document.

    Args: kinds int `[n]`, the type of each word in order; control, of these types; per_word, tokens per word, > 0.
    Raises: ConfigError for a per_word that is not above 0.
    """
    octaves, reference = [], 0.0
    for gains in octave_gains(kinds, control, per_word=per_word, octaves=(REFERENCE, *OCTAVES)):
        octave = _summed(gains, per_word)
        if gains.first_tokens == REFERENCE:
            reference = octave.gain_nats
        else:
            octaves.append(octave)
    return Profile(tuple(octaves), reference, control.name, len(kinds) * per_word)


def octave_gains(
    kinds: np.ndarray, control: Control, *, per_word: float, octaves: tuple[int, ...] = OCTAVES
) -> Iterator[Gains]:
    """Contributions of every word and pair, octave by octave; octaves beyond the document are left out.

    Args: as `distance_profile`; octaves, where each begins, tokens, ascending.
    """
    if not per_word > 0:
        raise ConfigError(f"per_word is {per_word}; expected the tokens per word, above 0.")
    n = len(kinds)
    items = [_Items.of_words(kinds, control), _Items.of_pairs(kinds, control)]
    back = np.arange(n) * per_word
    for first in octaves:
        if n * per_word < first * (1 + LEAST_EXPOSURE):
            return
        exposure = np.clip((back - first) / first, 0.0, 1.0)
        # What an octave leaves out, those beyond it leave out as well.
        items = [item.beyond(first, exposure, per_word) for item in items]
        parts = [item.gains(first, exposure, per_word) for item in items]
        place = np.concatenate([item.place for item in items])
        is_pair = np.repeat([item.pairs for item in items], [len(item.place) for item in items])
        yield Gains(first, place, np.concatenate(parts), is_pair, exposure)


@dataclass(frozen=True, eq=False)
class _Items:
    """Occurrences of the items of one sort that carry weight. gap: words since the last one, a huge number if none."""

    place: np.ndarray
    gap: np.ndarray
    weight: np.ndarray
    row: np.ndarray
    control: Control
    pairs: bool

    @classmethod
    def of_words(cls, kinds: np.ndarray, control: Control) -> "_Items":
        weights = control.word_weights
        seen = Occurrences(kinds, (weights > 0)[kinds])
        kind = kinds[seen.position]
        return cls(seen.position, _gap(seen), weights[kind], kind, control, pairs=False)

    @classmethod
    def of_pairs(cls, kinds: np.ndarray, control: Control) -> "_Items":
        """Pairs of neighbours, both with weight in pairs; a pair's place is that of its second word."""
        part = control.pair_weights
        counted = (
            np.flatnonzero((part[kinds[:-1]] > 0) & (part[kinds[1:]] > 0))
            if len(kinds) > 1
            else np.zeros(0, int)
        )
        # By first word, then second, then place: two sorts by radix.
        order = stable_order(kinds[counted + 1])
        order = order[stable_order(kinds[counted][order])]
        at = counted[order] + 1
        a, b = kinds[at - 1], kinds[at]
        gap = np.full(len(at), _NEVER)
        again = np.flatnonzero((a[1:] == a[:-1]) & (b[1:] == b[:-1])) + 1
        gap[again] = at[again] - at[again - 1]
        rarer = np.where(part[a] >= part[b], a, b)
        return cls(at, gap, part[a] + part[b], rarer, control, pairs=True)

    def beyond(self, first: int, exposure: np.ndarray, per_word: float) -> "_Items":
        """Those at risk in the octave, with some of it in the document; all later octaves need no others."""
        rows = np.flatnonzero((self.gap * per_word >= first) & (exposure[self.place] > 0))
        return replace(
            self, place=self.place[rows], gap=self.gap[rows], weight=self.weight[rows], row=self.row[rows]
        )

    def gains(self, first: int, exposure: np.ndarray, per_word: float) -> np.ndarray:
        """Value of each, nats."""
        span = exposure[self.place] * first / per_word
        expected = self.control.expected(self.row, span, first / per_word, pairs=self.pairs)
        return self.weight * ((self.gap * per_word < 2 * first) - expected)


def _gap(seen: Occurrences) -> np.ndarray:
    return np.where(seen.previous >= 0, seen.position.astype(np.int64) - seen.previous, _NEVER)


def _summed(gains: Gains, per_word: float) -> Octave:
    """Total over the document, and its error over blocks of equal exposure."""
    reach = np.cumsum(gains.exposure)
    edges = np.searchsorted(reach, reach[-1] * np.arange(1, NUM_BLOCKS) / NUM_BLOCKS)
    blocks = np.bincount(
        np.searchsorted(edges, gains.place, side="right"), weights=gains.value, minlength=NUM_BLOCKS
    )
    total = float(reach[-1]) * per_word
    spread = np.sum((blocks - blocks.mean()) ** 2) * NUM_BLOCKS / (NUM_BLOCKS - 1)
    return Octave(gains.first_tokens, float(blocks.sum()) / total, float(np.sqrt(spread)) / total, total)
