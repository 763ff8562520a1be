"""Mixtures in words: "books=0.4,code=0.6", or a table of names and weights."""

import math
from collections.abc import Mapping
from typing import Any

from longlode.core.errors import ConfigError

_EXPECTED = "expected NAME=WEIGHT,NAME=WEIGHT or a table, such as books=0.4,code=0.6"


def parse_mix(given: str | Mapping[str, Any]) -> dict[str, float]:
    """Return the weights of a mixture by name, in the order given, scaled to add up to 1.

    A name may contain "=": the last one in an item separates the weight. A weight of 0 is allowed beside others.
    Raises: ConfigError for text of another form, a name given twice, weights that are negative, not finite or all 0.
    """
    items = (
        _items(given) if isinstance(given, str) else [(str(name), weight) for name, weight in given.items()]
    )
    weights: dict[str, float] = {}
    for name, weight in items:
        if name in weights:
            raise ConfigError(f"the mixture {given!r} names {name!r} twice; name each group once.")
        weights[name] = _weight(name, weight, given)
    total = sum(weights.values())
    if not total > 0:
        raise ConfigError(f"the mixture {given!r} has no weight above 0; {_EXPECTED}.")
    return {name: weight / total for name, weight in weights.items()}


def _items(text: str) -> list[tuple[str, str]]:
    found = []
    for item in text.split(","):
        name, equals, weight = (part.strip() for part in item.rpartition("="))
        if not (name and equals and weight):
            raise ConfigError(f"the mixture {text!r} has the item {item!r}; {_EXPECTED}.")
        found.append((name, weight))
    return found


def _weight(name: str, value: Any, given: Any) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if isinstance(value, bool) or not (math.isfinite(weight) and weight >= 0):
        raise ConfigError(
            f"the mixture {given!r} gives {name!r} the weight {value!r}; expected a number >= 0."
        )
    return weight
