"""Fit of the gate: multinomial logistic regression, with a penalty that depends on each feature's own separation.

A weight is written W_kj = S_kj V_kj with S_kj the difference of the means of coherent text and family k, in standard
deviations, held within FLOOR and 2; the squares of V are penalised. So a feature that does not separate a family gets
nearly no weight for it, which matters: there are 7 numbers to fit per text (docs/experiments/gate.md).
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from longlode.core.errors import InputError
from longlode.mining.gate.direction import Directions
from longlode.mining.gate.minimize import minimize
from longlode.mining.gate.model import NUM_HINGES, LengthWeights

COHERENT = "coherent"
PENALTY = 3e-4
FLOOR = 0.05
HINGES = (0.05, 0.5, 0.95)
CLIP = (0.005, 0.995)
STEPS = 120
FOLDS = 3
"""Fits that the weights are the mean of, each without a share of the works."""
HEAVIER: Mapping[str, float] = {
    **dict.fromkeys(("paragraphs-reversed", "sentences-reversed"), 5.0),
    "renamed": 4.0,
    **dict.fromkeys(("drifting", "own-pieces", "two-halves", "inserted", "glued-4", "glued-8"), 2.0),
    "pages-of-one-project": 2.0,
}
"""Families that are hard to see, and how many times as much they count in the fit."""


def fit_length(
    values: np.ndarray,
    labels: Sequence[str],
    cells: Sequence[str],
    families: Sequence[str],
    *,
    heavier: Mapping[str, float] | None = None,
    folds: Sequence[int] | None = None,
) -> LengthWeights:
    """Fit at one length.

    Args:
      values: float `[R, F]`, NaN for missing.
      labels: "coherent" or a family.
      cells: domain and language of each: they have equal weight in a label, and labels among the negatives.
      families: in the order of the result.
      heavier: factors for the weight of families that are hard to detect, else outweighed by the others.
      folds: a number for each text, the same for texts of one work: the weights are the mean over fits that each leave
        a fold out, which steadies them. None: one fit of all texts.
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
    fold = np.zeros(len(label), dtype=np.int64) if folds is None else np.array(folds)
    numbers = np.unique(fold)
    fits = []
    for number in numbers:
        rows: list[int] = np.flatnonzero((fold != number) | (len(numbers) == 1)).tolist()
        chosen = [labels[row] for row in rows]
        share = _shares(chosen, [cells[row] for row in rows], heavier or {})
        fits.append(_fit_rows(design[rows], chosen, share, families))
    weights, biases = (np.mean([fit[k] for fit in fits], axis=0) for k in (0, 1))
    return LengthWeights(low, high, mean, std, hinges, weights, biases)


def _fit_rows(
    design: np.ndarray, labels: Sequence[str], share: np.ndarray, families: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights `[K, columns]` and biases `[K]` that fit these texts best, under the penalty."""
    scale = _effects(design, np.array(labels), share, families)
    target = np.array([0 if name == COHERENT else 1 + list(families).index(name) for name in labels])
    shape = scale.shape

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
    return flat[shape[0] :].reshape(shape) * scale, flat[: shape[0]]


def _shares(labels: Sequence[str], cells: Sequence[str], heavier: Mapping[str, float]) -> np.ndarray:
    """Weight of each text; coherent text weighs as much as all negatives; sum 1."""
    keys = list(zip(labels, cells, strict=True))
    size = Counter(keys)
    number = Counter(label for label, _ in size)
    found = np.array([heavier.get(k[0], 1.0) / size[k] / number[k[0]] for k in keys])
    coherent = np.array(labels) == COHERENT
    for rows in (coherent, ~coherent):
        found[rows] /= max(found[rows].sum(), 1e-300)
    share: np.ndarray = found / found.sum()
    return share


def _effects(design: np.ndarray, label: np.ndarray, share: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """The scales S of the penalty, `[K, columns]`."""
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
        "words": list(known.words),
    }
    (folder / "gate.json").write_text(json.dumps(head, ensure_ascii=False) + "\n", encoding="utf-8")
    arrays: dict[str, np.ndarray] = {
        f"{length}.{name}": array.astype(np.float32)
        for length, weights in by_length.items()
        for name, array in asdict(weights).items()
    }
    for name, keys in known.keys.items():
        arrays[f"direction.{name}.keys"] = keys
        arrays[f"direction.{name}.weights"] = known.weights[name].astype(np.float16)
    np.savez_compressed(folder / "gate.npz", **arrays)  # type: ignore[arg-type]
