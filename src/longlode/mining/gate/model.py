"""The gate: log-odds that a text is one document in its order against 41 families of text that is not.

    z_k = b_k + sum_j W_kj h_j(x)           h: the features, scaled, and hinges at their 5, 50 and 95 % points
    log-odds = -log sum_k exp(z_k)           z of coherent text is 0

Each family has weights of its own: the features that reveal interleaved texts do not reveal random words. There is a
set of weights at each of a few lengths; between two the log-odds are linear in the logarithm of the number of tokens. A
longer text is judged as a whole, by the weights of the greatest length, and by up to four stretches of that length; the
log-odds are the mean. The meaning of features changes with length, and the whole text shows what no single stretch
holds.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from longlode.core.errors import InputError
from longlode.core.fingerprints import text_fingerprint
from longlode.mining.baselines import estimated_tokens
from longlode.mining.gate.direction import TABLES, Directions
from longlode.mining.gate.features import FEWEST_WORDS, measure
from longlode.mining.gate.parsed_text import ParsedText

PACKAGED = Path(__file__).parents[2] / "assets" / "gate"
NUM_HINGES = 3
BEYOND = 1.25
"""From this multiple of the weights' greatest length on, a text is also judged by its stretches."""
MOST_STRETCHES = 4


@dataclass(frozen=True, eq=False)
class LengthWeights:
    """Weights fitted at one length; F features, K families.

    low, high, mean, std: float64 `[F]`, features are held within low and high. hinges: float64 `[NUM_HINGES, F]`, in
    scaled units. weights: float64 `[K, (1 + NUM_HINGES) F]`; biases `[K]`.
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    hinges: np.ndarray
    weights: np.ndarray
    biases: np.ndarray

    def design(self, values: np.ndarray) -> np.ndarray:
        """h of each of R texts, `[R, (1 + NUM_HINGES) F]`; a missing feature counts as usual, 0."""
        scaled = (np.clip(values, self.low, self.high) - self.mean) / self.std
        scaled = np.where(np.isfinite(scaled), scaled, 0.0)
        return np.hstack([scaled, *(np.maximum(scaled - hinge, 0.0) for hinge in self.hinges)])

    def against(self, values: np.ndarray) -> np.ndarray:
        """z, `[R, K]`: log-odds of each family against coherent text."""
        found: np.ndarray = self.design(values) @ self.weights.T + self.biases
        return found


@dataclass(frozen=True)
class Verdict:
    """Verdict of the gate on a text.

    log_odds: nats; 0 means even odds. looks_like: the family that is the strongest rival.
    """

    log_odds: float
    looks_like: str


@dataclass(frozen=True, eq=False)
class Gate:
    """Fitted weights.

    names: of the features; families: of the negatives; by_length: tokens -> weights; known: tables of direction.
    """

    names: tuple[str, ...]
    families: tuple[str, ...]
    by_length: dict[int, LengthWeights]
    known: Directions
    fingerprint: str

    def judge(self, text: str) -> Verdict | None:
        """Judge a text; None below FEWEST_WORDS words."""
        return self.judge_parsed(ParsedText.of(text))

    def judge_parsed(self, parsed: ParsedText) -> Verdict | None:
        """As `judge`, of a text already read."""
        if parsed.num_words < FEWEST_WORDS:
            return None
        odds, rivals = self.in_parts(parsed)
        return Verdict(float(np.mean(odds)), self.families[int(np.argmax(rivals.mean(axis=0)))])

    def in_parts(self, parsed: ParsedText) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds of the whole and of each stretch, `[1 + stretches]`, and of each family, `[1 + stretches, K]`."""
        num_tokens, longest = estimated_tokens(parsed.text), max(self.by_length)
        found = [self.against(measure(parsed, self.known), num_tokens)]
        if num_tokens > BEYOND * longest:
            parts = (parsed.part(*place) for place in stretches(parsed.text, longest / num_tokens))
            found += [
                self.against(measure(part, self.known), longest)
                for part in parts
                if part.num_words >= FEWEST_WORDS
            ]
        return np.array([odds for odds, _ in found]), np.array([rivals for _, rivals in found])

    def judge_features(self, features: dict[str, float], num_tokens: float) -> Verdict:
        """As `judge`, of the features of `measure`."""
        odds, rivals = self.against(features, num_tokens)
        return Verdict(odds, self.families[int(np.argmax(rivals))])

    def against(self, features: dict[str, float], num_tokens: float) -> tuple[float, np.ndarray]:
        """Log-odds that a text is one document, and of each family against that, `[K]`, nats."""
        values = np.array([[features[name] for name in self.names]])
        lengths = sorted(self.by_length)
        place = np.interp(np.log(num_tokens), np.log(lengths), np.arange(len(lengths)))
        low = int(place)
        part = place - low
        rivals = self.by_length[lengths[low]].against(values)[0]
        odds = -_log_sum(rivals)
        if part > 0:
            other = self.by_length[lengths[low + 1]].against(values)[0]
            odds = (1 - part) * odds - part * _log_sum(other)
            rivals = (1 - part) * rivals + part * other
        return float(odds), rivals


def stretches(text: str, share: float) -> list[tuple[int, int]]:
    """At most MOST_STRETCHES stretches of `share` of the text, evenly spread, each from the beginning of a line on.

    Returns: first character of each, and that after its last.
    """
    number = min(MOST_STRETCHES, max(2, round(1.5 / share)))
    size = round(len(text) * share)
    found = []
    for place in range(number):
        start = (len(text) - size) * place // (number - 1)
        line = text.find("\n", start, start + size // 16) if place else -1
        begin = line + 1 if line >= 0 else start
        found.append((begin, min(begin + size, len(text))))
    return found


def _log_sum(values: np.ndarray) -> float:
    return float(np.logaddexp.reduce(values))


def read_gate(folder: Path) -> Gate:
    """Read fitted weights: `gate.json` and `gate.npz`. Raises: InputError that names what is missing or invalid."""
    path = folder / "gate.json"
    try:
        text = path.read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
        with np.load(folder / "gate.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder}: {error}; expected gate.json and gate.npz of `longlode fit-score`."
        ) from error
    by_length = {}
    for length in found["lengths"]:
        parts = {
            name: arrays[f"{length}.{name}"].astype(np.float64) for name in LengthWeights.__dataclass_fields__
        }
        expected = (len(found["families"]), (1 + NUM_HINGES) * len(found["names"]))
        if parts["weights"].shape != expected:
            raise InputError(f"{folder}: weights of shape {parts['weights'].shape}; expected {expected}.")
        by_length[int(length)] = LengthWeights(**parts)
    digest = text_fingerprint(
        text + "".join(f"{name}{array.tobytes().hex()}" for name, array in arrays.items())
    )
    known = Directions(
        tuple(found["words"]),
        {name: arrays[f"direction.{name}.keys"] for name in TABLES},
        {name: arrays[f"direction.{name}.weights"].astype(np.float64) for name in TABLES},
    )
    return Gate(tuple(found["names"]), tuple(found["families"]), by_length, known, digest)


@cache
def packaged_gate() -> Gate:
    """The gate in the package, read once."""
    return read_gate(PACKAGED)
