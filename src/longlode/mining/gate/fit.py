"""Fit the gate: multinomial logistic regression with a penalty that follows what each feature shows by itself.

A weight is written W_kj = S_kj V_kj with S_kj the difference of the means of coherent text and family k, in standard
deviations, held within FLOOR and 2; the squares of V are penalised. A feature that shows nothing of a family so gets
next to no weight for it, which matters: there are 7 numbers to fit per text (docs/experiments.md).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from longlode.core.errors import InputError
from longlode.mining.gate.model import NUM_HINGES, LengthWeights
from longlode.mining.gate.signs import Directions, to_json

COHERENT = "coherent"
PENALTY = 3e-4
FLOOR = 0.05
HINGES = (0.05, 0.5, 0.95)
CLIP = (0.005, 0.995)
STEPS = 120


def fit_length(
    values: np.ndarray, labels: Sequence[str], cells: Sequence[str], families: Sequence[str]
) -> LengthWeights:
    """Fit at one length.

    Args: values float `[R, F]`, NaN for missing; labels, "coherent" or a family; cells, domain and language of each:
      they count alike in a label, and labels alike among the negatives; families, in the order of the result.
    Raises: InputError if there is no coherent text, or a label is unknown.
    """
    label = np.array(labels)
    coherent = label == COHERENT
    unknown = set(labels) - {COHERENT, *families}
    if unknown or not coherent.any():
        raise InputError(
            f"labels {sorted(unknown)} are no families, or no text is coherent; expected both kinds."
        )
    # A feature that no text of this length has is taken as usual everywhere.
    values = np.where(np.isfinite(values[coherent]).any(axis=0), values, 0.0)
    low, high = np.nanquantile(values, CLIP, axis=0)
    held = np.clip(values, low, high)
    usual = held[coherent]
    mean = np.nanmean(usual, axis=0)
    std = (np.nanstd(usual, axis=0) + np.nanstd(held, axis=0)) / 2 + 1e-3
    hinges = np.nanquantile((usual - mean) / std, HINGES, axis=0)
    shape = (len(families), (1 + NUM_HINGES) * values.shape[1])
    bare = LengthWeights(low, high, mean, std, hinges, np.zeros(shape), np.zeros(len(families)))
    design = bare.design(values)
    share = _shares(labels, cells)
    scale = _effects(design, label, share, families)
    target = np.array([0 if name == COHERENT else 1 + list(families).index(name) for name in labels])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        biases, free = flat[: shape[0]], flat[shape[0] :].reshape(shape)
        z = np.hstack([np.zeros((len(design), 1)), design @ (free * scale).T + biases])
        z -= z.max(axis=1, keepdims=True)
        p = np.exp(z)
        p /= p.sum(axis=1, keepdims=True)
        rows = np.arange(len(target))
        value = -(share * np.log(p[rows, target] + 1e-300)).sum() + PENALTY * (free**2).sum()
        p[rows, target] -= 1.0
        push = (p * share[:, None])[:, 1:]
        slope = (push.T @ design) * scale + 2 * PENALTY * free
        return float(value), np.concatenate([push.sum(0), slope.ravel()])

    flat = minimize(loss, np.zeros(shape[0] + shape[0] * shape[1]), steps=STEPS)
    weights = flat[shape[0] :].reshape(shape) * scale
    return LengthWeights(low, high, mean, std, hinges, weights, flat[: shape[0]])


def _shares(labels: Sequence[str], cells: Sequence[str]) -> np.ndarray:
    """Weight of each text; coherent text counts as much as all negatives, sum 1."""
    keys = list(zip(labels, cells, strict=True))
    size = {key: keys.count(key) for key in set(keys)}
    number = {label: sum(key[0] == label for key in size) for label in set(labels)}
    negatives = max(1, len(number) - 1)
    found = np.array([1 / size[k] / number[k[0]] / (1 if k[0] == COHERENT else negatives) for k in keys])
    share: np.ndarray = found / found.sum()
    return share


def _effects(design: np.ndarray, label: np.ndarray, share: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """S, `[K, columns]`."""
    coherent = label == COHERENT
    mean = np.average(design[coherent], axis=0, weights=share[coherent])
    variance = design[coherent].var(axis=0)
    rows = []
    for family in families:
        own = design[label == family]
        if not len(own):
            rows.append(np.full(design.shape[1], FLOOR))
            continue
        effect = np.abs(own.mean(axis=0) - mean) / np.sqrt((variance + own.var(axis=0)) / 2 + 1e-2)
        rows.append(np.clip(effect, FLOOR, 2.0))
    return np.array(rows)


def minimize(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    *,
    steps: int,
    memory: int = 12,
) -> np.ndarray:
    """Minimise a smooth function by L-BFGS with backtracking (Nocedal and Wright, algorithm 7.5).

    Args: function, of a point to its value and gradient; start float64 `[n]`; steps at most; memory, pairs kept.
    """
    point = start.copy()
    value, slope = function(point)
    history: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(steps):
        move = -_inverse_hessian(slope, history)
        expected = float(slope @ move)
        if expected >= 0:
            history, move, expected = [], -slope, -float(slope @ slope)
        size = 1.0 if history else min(1.0, 1.0 / (float(np.abs(slope).sum()) + 1e-12))
        while True:
            after = point + size * move
            new_value, new_slope = function(after)
            if new_value <= value + 1e-4 * size * expected or size < 1e-10:
                break
            size *= 0.5
        step, bend = after - point, new_slope - slope
        if float(step @ bend) > 1e-12:
            history = [*history[-(memory - 1) :], (step, bend)]
        settled = value - new_value < 1e-9 * max(1.0, abs(value))
        point, value, slope = after, new_value, new_slope
        if settled:
            break
    return point


def _inverse_hessian(slope: np.ndarray, history: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The approximate inverse Hessian times the slope, by the two loops over the kept pairs."""
    found = slope.copy()
    factors = []
    for step, bend in reversed(history):
        factor = float(step @ found) / float(step @ bend)
        factors.append(factor)
        found -= factor * bend
    if history:
        step, bend = history[-1]
        found *= float(step @ bend) / float(bend @ bend)
    for (step, bend), factor in zip(history, reversed(factors), strict=True):
        found += step * (factor - float(bend @ found) / float(step @ bend))
    return found


def write_gate(
    folder: Path,
    names: Sequence[str],
    families: Sequence[str],
    by_length: dict[int, LengthWeights],
    known: Directions,
) -> None:
    """Write `gate.json` and `gate.npz` (float32) for `read_gate`."""
    folder.mkdir(parents=True, exist_ok=True)
    head = {
        "lengths": sorted(by_length),
        "names": list(names),
        "families": list(families),
        "known": to_json(known),
    }
    (folder / "gate.json").write_text(json.dumps(head, ensure_ascii=False) + "\n", encoding="utf-8")
    arrays = {
        f"{length}.{name}": array.astype(np.float32)
        for length, weights in by_length.items()
        for name, array in asdict(weights).items()
    }
    np.savez_compressed(folder / "gate.npz", **arrays)
