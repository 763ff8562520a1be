"""Separation of real documents from each kind of fake: AUC with an interval that is valid at 0 and 1 as well."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from longlode.core.ranking import wins

_Z = 1.959963984540054  # the normal distribution's 97.5 % point
_HALVINGS = 60


@dataclass(frozen=True)
class Auc:
    """Chance that a real document scores above a fake one, ties half; a 95 % interval; the number of each."""

    value: float
    low: float
    high: float
    num_real: int
    num_fake: int


def auc(real: Sequence[float], fake: Sequence[float]) -> Auc | None:
    """AUC of two sets of scores; None when one is empty. Source: Mann and Whitney 1947; interval, `auc_interval`."""
    if not real or not fake:
        return None
    value = float(wins(np.asarray(real, float), np.asarray(fake, float)).mean())
    return Auc(value, *auc_interval(value, len(real), len(fake)), len(real), len(fake))


def auc_interval(value: float, num_a: int, num_b: int) -> tuple[float, float]:
    """The AUCs t for which `value` lies within 1.96 standard errors of t, the error being that at t.

    Unlike a bootstrap it has a width where all pairs are in order. Source: Newcombe 2006, Statistics in Medicine 25,
    543-573, method 5.
    """

    def inside(t: float) -> bool:
        half = (num_a + num_b) / 2 - 1
        spread = 1 + half * (1 - t) / (2 - t) + half * t / (1 + t)
        return bool((value - t) ** 2 <= _Z**2 * t * (1 - t) * spread / (num_a * num_b))

    ends = []
    for outside in (0.0, 1.0):
        within = value
        for _ in range(_HALVINGS):
            middle = (within + outside) / 2
            within, outside = (middle, outside) if inside(middle) else (within, middle)
        ends.append(within)
    return ends[0], ends[1]


def separation(
    sources: Sequence[str], signals: Mapping[str, Sequence[float | None]], kinds: Sequence[str], real: str
) -> dict[str, dict[str, Auc]]:
    """AUC of every signal against every kind.

    Args: sources, of each document; signals, values of each document by signal, None where it has none; kinds, those
      to compare with; real, the source of real documents.
    Returns: kind -> signal -> AUC; signals without values are left out.
    """
    found: dict[str, dict[str, Auc]] = {}
    for kind in kinds:
        for name, values in signals.items():
            sides = [
                [v for v, source in zip(values, sources, strict=True) if source == side and v is not None]
                for side in (real, kind)
            ]
            if one := auc(*sides):
                found.setdefault(kind, {})[name] = one
    return found
