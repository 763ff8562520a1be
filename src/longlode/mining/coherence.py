"""How surely is this one document, in its own order? The features of the default score, and what is made of them.

Three questions, each a factor with a probability; a document must pass all three, so they are multiplied:

    order   does a passage need the text before it (`mining.order`), or would any text of the document do?
    seams   do rare words link both sides of every cut (`mining.seams`), or does it fall apart somewhere?
    names   do rare words come back far away, for as much order as there is, or do all names change on the way?

    z_f = bias_f + sum_x weight_fx * (clip(x) - mean_x) / std_x         P = prod_f 1 / (1 + exp(-z_f))
    score = log(P / (1 - P)), nats

Every factor also sees the length of the document, and how rich its vocabulary is, since what is to be expected depends
on both. Clip holds every feature within what was seen when the weights were fitted (`recipes/make_default_score.py`),
so that a strange document is not judged by extrapolation.
"""

import itertools
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from longlode.core.fingerprints import text_fingerprint
from longlode.corpus.words import split_words
from longlode.mining.background import PACKAGED as BACKGROUND_FILE
from longlode.mining.background import Background
from longlode.mining.order import information, order_contrast
from longlode.mining.seams import far_shares, link_shares

WEIGHTS_FILE = Path(__file__).parents[1] / "assets" / "default_score" / "weights.json"
NEAR_TOKENS = (128, 192)
"""What a model of any kind gets right from close by: types that stand there are not counted. Least and most."""
SPAN_TOKENS = 1024
"""The past that is put to the test, and the size of the windows it is compared with. At most."""
CLOSE_ORDER = (64, 256)
"""(near, span) of the second order feature: what the paragraph before announces."""
SPANS = (300, 600)
"""Words on either side of a cut; at most a quarter of the document."""
LIMITS = {"rare": 0.03, "uncommon": 0.1}
"""Classes of words: those in at most this share of the windows of text at large."""
QUANTILES = {"lowest": 0.02, "low": 0.1, "middle": 0.5}
"""Of the link shares of a document's cuts."""
NUM_BLOCKS = 10
"""Blocks of the jackknife."""
_PAGE_WORDS = 300


@dataclass(frozen=True, eq=False)
class Words:
    """What is kept of a text: kinds int32 `[n]`, the type of each word; shares float64 `[num_types]`, that of the
    windows of text at large that hold the type."""

    kinds: np.ndarray
    shares: np.ndarray


def read_words(text: str, background: Background) -> Words:
    """The words of a text."""
    known: dict[str, int] = {}
    kinds = np.array([known.setdefault(word, len(known)) for word in split_words(text)], dtype=np.int32)
    return Words(kinds, background.share(list(known)))


def spans(num_tokens: int) -> tuple[int, int]:
    """(near, span) in tokens for a document of `num_tokens`; the full ones from 15,360 tokens on.

    A span is at most a tenth of the document, so that there are windows enough to compare with; a longer document can
    afford a wider near context, which keeps its counts free of what any language model knows (docs/experiments.md).
    """
    least, most = NEAR_TOKENS
    near = min(max(least, num_tokens // 80), most, num_tokens // 16)
    return near, max(1, min(SPAN_TOKENS, num_tokens // 10))


@dataclass(frozen=True, eq=False)
class _Series:
    """Values along the document: places in [0, 1), what is averaged, and its weights; or shares at cuts, unweighted."""

    places: np.ndarray
    values: np.ndarray
    weights: np.ndarray | None = None


class Measurements:
    """Everything that the features are made of, along the document, so that parts of it can be left out."""

    def __init__(self, tokens: np.ndarray, words: Words) -> None:
        """Args: tokens int `[n]`, the whole document; words, the same text's."""
        self.num_tokens = len(tokens)
        self.means: dict[str, _Series] = {}
        self.cuts: dict[str, _Series] = {}
        self._measure_order(np.asarray(tokens))
        self._measure_words(words)

    def features(self, left_out: tuple[float, float] | None = None) -> dict[str, float]:
        """Features by name, of the document or of what remains without a part of it.

        Args: left_out, where the part begins and stops, as shares of the document.
        """
        found = {"length": float(np.log(max(self.num_tokens, 1)))}
        for name, series in self.means.items():
            keep = _kept(series.places, left_out)
            weights = np.ones(len(series.values)) if series.weights is None else series.weights
            total = weights[keep].sum()
            mean = float((series.values[keep] * weights[keep]).sum() / total) if total > 0 else 0.0
            found[name] = _logarithm(name, mean)
        for name, series in self.cuts.items():
            shares = series.values[_kept(series.places, left_out)]
            levels = (
                np.quantile(shares, list(QUANTILES.values())) if len(shares) else np.zeros(len(QUANTILES))
            )
            for level, value in zip(QUANTILES, levels, strict=True):
                found[f"{level}_{name}"] = _logarithm(f"{level}_{name}", float(value))
        return found

    def _measure_order(self, tokens: np.ndarray) -> None:
        places = np.arange(len(tokens)) / max(len(tokens), 1)
        nats = information(tokens) if len(tokens) else np.zeros(0)
        for name, (near, span) in {"order": spans(len(tokens)), "close_order": CLOSE_ORDER}.items():
            result = order_contrast(tokens, near=near, span=span)
            self.means[name] = _Series(places, result.contrast * nats, result.counted.astype(np.float64))

    def _measure_words(self, words: Words) -> None:
        kinds, n = words.kinds, len(words.kinds)
        places = np.arange(n) / max(n, 1)
        nats = -np.log(words.shares)
        each = nats[kinds]
        self.means["information"] = _Series(places, each)
        rare = (words.shares < LIMITS["rare"])[kinds]
        self.means["share_rare"] = _Series(places, rare.astype(np.float64))
        starts = np.arange(0, max(n - _PAGE_WORDS + 1, 1), _PAGE_WORDS)
        types = [len(np.unique(kinds[s : s + _PAGE_WORDS])) / max(1, min(_PAGE_WORDS, n)) for s in starts]
        self.means["types"] = _Series(starts / max(n, 1), np.array(types))
        for full in SPANS:
            span = max(1, min(full, n // 4))
            far = far_shares(kinds, span, max(1, n // 3)) if n >= span else np.zeros(n)
            for label, limit in LIMITS.items():
                weights = np.where(words.shares < limit, nats, 0.0)
                shares, cuts = link_shares(kinds, weights, span)
                self.cuts[f"links_{label}_{full}"] = _Series(cuts / max(n, 1), shares)
                self.means[f"far_{label}_{full}"] = _Series(places, far, weights[kinds])


def _kept(places: np.ndarray, left_out: tuple[float, float] | None) -> np.ndarray:
    if left_out is None:
        return np.ones(len(places), dtype=bool)
    return (places < left_out[0]) | (places >= left_out[1])


def _logarithm(name: str, value: float) -> float:
    """Shares and nats on a log scale, where differences count alike; small ones are all the same."""
    if name in ("information", "types"):
        return value
    floor = 2e-3 if "order" in name else 1e-2 if name == "share_rare" else 2e-2
    return float(np.log(max(value, floor) if "order" in name else max(value, 0.0) + floor))


@dataclass(frozen=True)
class Weights:
    """The fitted numbers: for each feature (low, high, mean, std), and for each factor its bias and its weights."""

    scales: dict[str, tuple[float, float, float, float]]
    biases: dict[str, float]
    weights: dict[str, dict[str, float]]
    fingerprint: str

    def factors(self, features: dict[str, float]) -> dict[str, float]:
        """log P of each factor, nats, <= 0."""
        scaled = {
            name: (min(max(features[name], low), high) - mean) / std
            for name, (low, high, mean, std) in self.scales.items()
        }
        return {
            factor: -float(
                np.logaddexp(0.0, -(self.biases[factor] + sum(w * scaled[x] for x, w in weights.items())))
            )
            for factor, weights in self.weights.items()
        }

    def log_odds(self, features: dict[str, float]) -> float:
        """The score, nats."""
        log_p = sum(self.factors(features).values())
        return log_p - float(np.log(-np.expm1(min(log_p, -1e-12))))


def read_weights(path: Path, background: Path) -> Weights:
    """Read weights; their fingerprint is also that of the background they were fitted with."""
    text = path.read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return Weights(
        scales={name: tuple(values) for name, values in found["scales"].items()},
        biases=found["biases"],
        weights=found["weights"],
        fingerprint=text_fingerprint(text + background.read_text(encoding="utf-8")),
    )


@cache
def packaged_weights() -> Weights:
    """Those in the package, read once."""
    return read_weights(WEIGHTS_FILE, BACKGROUND_FILE)


@dataclass(frozen=True)
class Seam:
    """Where a document holds together least.

    word: number of the first word after the cut. share: weight of the rare words after it that stand before it as well,
    [0, 1]; typical: the median over all cuts. span: words on either side.
    """

    word: int
    share: float
    typical: float
    span: int


def weakest_seam(words: Words) -> Seam | None:
    """The cut with the smallest link share of rare words; None for a text too short to be cut."""
    n = len(words.kinds)
    span = max(1, min(SPANS[-1], n // 4))
    weights = np.where(words.shares < LIMITS["rare"], -np.log(words.shares), 0.0)
    shares, cuts = link_shares(words.kinds, weights, span)
    if not len(cuts):
        return None
    least = int(np.argmin(shares))
    return Seam(int(cuts[least]), float(shares[least]), float(np.median(shares)), span)


def coherence_score(measured: Measurements, weights: Weights) -> tuple[float, float]:
    """The default score of a document, nats, and its standard error: the jackknife over NUM_BLOCKS equal parts.

    se^2 = (B - 1) / B * sum_b (score without part b - mean of those)^2
    """
    edges = np.linspace(0.0, 1.0, NUM_BLOCKS + 1)
    without = np.array(
        [weights.log_odds(measured.features((float(a), float(b)))) for a, b in itertools.pairwise(edges)]
    )
    error = np.sqrt((NUM_BLOCKS - 1) / NUM_BLOCKS * np.sum((without - without.mean()) ** 2))
    return weights.log_odds(measured.features()), float(error)
