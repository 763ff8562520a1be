"""Features of the coherence score, and the log-odds that a document is one text in its own order.

Three factors, each a probability; a document must pass all three, so they are multiplied:

    order    passages reuse words of the text before them more than words of elsewhere (`mining.coherence.order`)
    `seams`  rare words link both sides of every cut (`mining.coherence.boundaries`)
    names    rare words return far away, given the order, instead of all names changing on the way

    z_f = bias_f + sum_x weight_fx * (clip(x) - mean_x) / std_x         P = prod_f 1 / (1 + exp(-z_f))
    score = log(P / (1 - P)), nats

Every factor also uses the richness of the vocabulary, since the expected values depend on it. Features are more
reliable in longer documents: biases and weights are given at a few lengths, linear in the logarithm of the number of
tokens between them and constant beyond. Clipping holds every feature within the range seen when the weights were fitted
(`recipes/make_coherence.py`), so that an unusual document is not judged by extrapolation.
"""

import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from longlode.core.fingerprints import text_fingerprint
from longlode.corpus.words import shared_vocabulary
from longlode.mining.coherence.background import PACKAGED as BACKGROUND_FILE
from longlode.mining.coherence.background import Background
from longlode.mining.coherence.boundaries import far_shares, link_shares
from longlode.mining.coherence.order import Occurrences, contrast_of, weighted_contrast
from longlode.mining.coherence.uncertainty import Stretches, jackknife_error

WEIGHTS_FILE = Path(__file__).parents[2] / "assets" / "coherence" / "weights.json"
NEAR_TOKENS = (128, 192)
"""Near context in tokens, least and most; types in it are not counted, as any model predicts them from there."""
SPAN_TOKENS = 1024
"""Span in tokens of the past that is tested and of the windows that it is compared with, at most."""
CLOSE_ORDER = (64, 256)
"""(near, span) of the second order feature: what the paragraph before announces."""
WORD_ORDER = (60, 400)
"""(near, span) of the third, in words weighed by their rarity; span at most a sixth of the document."""
SPANS = (60, 300, 600)
"""Words on either side of a cut; at most a quarter of the document."""
LIMITS = {"rare": 0.03, "uncommon": 0.1}
"""Classes of words: those in at most this share of the windows of the background corpus."""
QUANTILES = {"lowest": 0.02, "low": 0.1, "middle": 0.5}
"""Quantiles of the link shares of a document's cuts."""
NUM_BLOCKS = 10
"""Blocks of the jackknife."""
_PAGE_WORDS = 300
_BLOCK_WORDS = 1 << 20


@dataclass(frozen=True, eq=False)
class CountedWords:
    """Words of a text: kinds int32 `[n]`, the type of each word; shares float64 `[num_types]`, that of the
    windows of the background corpus that hold the type."""

    kinds: np.ndarray
    shares: np.ndarray


def read_words(text: str, background: Background) -> CountedWords:
    """The words of a text."""
    kinds, words = shared_vocabulary().read(text)
    return CountedWords(kinds, background.share(words))


def spans(num_tokens: int) -> tuple[int, int]:
    """(near, span) in tokens for a document of `num_tokens`; the full ones from 15,360 tokens on.

    A span is at most a tenth of the document, so that there are enough windows to compare with; a longer document can
    afford a wider near context, which excludes more of what any language model predicts (docs/experiments/score.md).
    """
    least, most = NEAR_TOKENS
    near = min(max(least, num_tokens // 80), most, num_tokens // 16)
    return near, max(1, min(SPAN_TOKENS, num_tokens // 10))


class Measurements:
    """The features of a document, and of the document without each of NUM_BLOCKS equal parts.

    values: name -> float64 `[1 + NUM_BLOCKS]`, of the whole document first.
    """

    def __init__(self, tokens: np.ndarray, words: CountedWords) -> None:
        """Args: tokens int `[n]`, the whole document; words, the same text's."""
        whole = float(np.log(max(len(tokens), 1)))
        self.values: dict[str, np.ndarray] = {"length": np.full(1 + NUM_BLOCKS, whole)}
        self._measure_order(np.asarray(tokens))
        self._measure_words(words)

    def features(self) -> dict[str, float]:
        """Features of the document by name."""
        return {name: float(values[0]) for name, values in self.values.items()}

    def _measure_order(self, tokens: np.ndarray) -> None:
        seen, parts = Occurrences(tokens), Stretches(len(tokens), NUM_BLOCKS)
        for name, (near, span) in {"order": spans(len(tokens)), "close_order": CLOSE_ORDER}.items():
            result = weighted_contrast(seen, near=near, span=span)  # what is not counted has none
            self._put(name, parts.ratios(result.contrast, result.counted))
            del result  # before that of the next size is made

    def _measure_words(self, words: CountedWords) -> None:
        kinds, n = words.kinds, len(words.kinds)
        parts, nats = Stretches(n, NUM_BLOCKS), -np.log(words.shares)
        self._put("information", parts.means(nats[kinds]))
        self._put("share_rare", parts.means((words.shares < LIMITS["rare"])[kinds].astype(np.float64)))
        self._put("types", parts.means(*_types(kinds)))
        # Words that have no weight in any class link nothing.
        seen = Occurrences(kinds, (words.shares < max(LIMITS.values()))[kinds])
        near, span = WORD_ORDER
        result = contrast_of(seen, near=near, span=max(1, min(span, n // 6)))
        for start in range(0, n, _BLOCK_WORDS):
            result.contrast[start : start + _BLOCK_WORDS] *= nats[kinds[start : start + _BLOCK_WORDS]]
        self._put("word_order", parts.ratios(result.contrast, result.counted))
        del result
        measured: dict[int, dict[str, np.ndarray]] = {}
        for full in SPANS:
            span = max(1, min(full, n // 4))
            if span not in measured:  # a short document has one span for all
                measured[span] = _measure_span(seen, words, nats, span, parts)
            for name, values in measured[span].items():
                self._put(f"{name}_{full}", values)

    def _put(self, name: str, values: np.ndarray) -> None:
        """Shares and nats on a log scale, where differences count alike; small ones are all the same."""
        if name not in ("information", "types"):
            if "order" in name:
                values = np.maximum(values, 2e-3)
            else:
                values = np.maximum(values, 0.0) + (1e-2 if name == "share_rare" else 2e-2)
            values = np.log(values)
        self.values[name] = values


def _measure_span(
    seen: Occurrences, words: CountedWords, nats: np.ndarray, span: int, parts: Stretches
) -> dict[str, np.ndarray]:
    """Quantiles of the link shares, and the far share, of each class of words; as `Measurements.values`, but linear."""
    found: dict[str, np.ndarray] = {}
    kind = words.kinds[seen.position[seen.first[:-1]]]
    far = far_shares(seen, span, max(1, seen.num_tokens // 3))
    for label, limit in LIMITS.items():
        weights = np.where(words.shares < limit, nats, 0.0)
        shares, cuts = link_shares(seen, weights[kind], span)
        levels = parts.quantiles(cuts, shares, np.array(list(QUANTILES.values())))
        found |= {f"{level}_links_{label}": values for level, values in zip(QUANTILES, levels, strict=True)}
        found[f"far_{label}"] = parts.means(far, weights[words.kinds])
    return found


def _types(kinds: np.ndarray) -> tuple[np.ndarray, None, np.ndarray]:
    """Different words in each page, a share of the words there; no weights; and where the pages begin."""
    size = max(1, min(_PAGE_WORDS, len(kinds)))
    pages = np.sort(kinds[: len(kinds) // size * size].reshape(-1, size), axis=1)
    types = 1 + np.count_nonzero(pages[:, 1:] != pages[:, :-1], axis=1)
    return types / size, None, np.arange(len(pages)) * size


@dataclass(frozen=True)
class Weights:
    """The fitted numbers, M lengths.

    lengths: of documents, in tokens, ascending. scales: for each feature (low, high, mean, std). biases, weights: for
    each factor its bias, and its weight of each feature it sees, at each of the lengths.
    """

    lengths: tuple[int, ...]
    scales: dict[str, tuple[float, float, float, float]]
    biases: dict[str, list[float]]
    weights: dict[str, dict[str, list[float]]]
    fingerprint: str

    def factors(self, features: dict[str, float]) -> dict[str, float]:
        """log P of each factor, nats, <= 0."""
        found = self._log_p({name: np.array([value]) for name, value in features.items()})
        return {name: float(values[0]) for name, values in zip(self.weights, found, strict=True)}

    def log_odds(self, features: dict[str, float]) -> float:
        """The score, nats."""
        return float(self.each_log_odds({name: np.array([value]) for name, value in features.items()})[0])

    def each_log_odds(self, values: dict[str, np.ndarray]) -> np.ndarray:
        """The score of each of K sets of features, nats, float64 `[K]`. Args: values, name -> float64 `[K]`."""
        log_p: np.ndarray = self._log_p(values).sum(axis=0)
        return log_p - np.log(-np.expm1(np.minimum(log_p, -1e-12)))

    def _log_p(self, values: dict[str, np.ndarray]) -> np.ndarray:
        """log P of each factor, float64 `[num_factors, K]`; sums along the first axis add up in the file's order."""
        low, high, mean, std, used = self._tables
        scaled = (np.clip(np.stack([values[name] for name in self.scales], axis=1), low, high) - mean) / std
        place = np.interp(values["length"], np.log(self.lengths), np.arange(len(self.lengths)))
        near = np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(len(self.lengths))))
        z = []
        for columns, table in used:
            own = near @ table
            z.append(own[:, 0] + (own[:, 1:] * scaled[:, columns]).sum(axis=1))
        return -np.logaddexp(0.0, -np.stack(z))

    @cached_property
    def _tables(self) -> tuple[Any, ...]:
        """Rows of the scales, `[num_features]`; of each factor the columns it sees, and `[M, 1 + columns]` numbers."""
        names = list(self.scales)
        used = [
            (
                np.array([names.index(x) for x in weights]),
                np.array([self.biases[factor], *weights.values()]).T,
            )
            for factor, weights in self.weights.items()
        ]
        return *np.array(list(self.scales.values())).T, used


def read_weights(path: Path, background: Path) -> Weights:
    """Read weights; their fingerprint is also that of the background they were fitted with."""
    text = path.read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return Weights(
        lengths=tuple(found["lengths"]),
        scales={name: tuple(values) for name, values in found["scales"].items()},
        biases=found["biases"],
        weights=found["weights"],
        fingerprint=text_fingerprint(text + background.read_text(encoding="utf-8")),
    )


@cache
def packaged_weights() -> Weights:
    """The weights in the package, read once."""
    return read_weights(WEIGHTS_FILE, BACKGROUND_FILE)


@dataclass(frozen=True)
class Seam:
    """The weakest boundary of a document.

    word: number of the first word after the cut. share: weight of the rare words after it that occur before it as well,
    [0, 1]; typical: the median over all cuts. span: words on either side.
    """

    word: int
    share: float
    typical: float
    span: int


def weakest_seam(words: CountedWords) -> Seam | None:
    """The cut with the smallest link share of rare words; None for a text too short to be cut."""
    n = len(words.kinds)
    span = max(1, min(SPANS[-1], n // 4))
    seen = Occurrences(words.kinds, (words.shares < LIMITS["rare"])[words.kinds])
    kind = words.kinds[seen.position[seen.first[:-1]]]
    shares, cuts = link_shares(seen, -np.log(words.shares[kind]), span)
    if not len(cuts):
        return None
    least = int(np.argmin(shares))
    return Seam(int(cuts[least]), float(shares[least]), float(np.median(shares)), span)


def coherence_score(measured: Measurements, weights: Weights) -> tuple[float, float]:
    """The coherence score of a document, nats, and its standard error: the jackknife over NUM_BLOCKS equal parts."""
    scores = weights.each_log_odds(measured.values)
    return float(scores[0]), jackknife_error(scores[1:])
