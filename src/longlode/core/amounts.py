"""Parsing and formatting of large numbers: 10B tokens, 500M, 64k."""

import re
from fractions import Fraction

from longlode.core.errors import ConfigError

_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
_AMOUNT = re.compile(r"(\d[\d_,]*(?:\.\d+)?)\s*([kmbgt]?)", re.IGNORECASE)


def parse_amount(given: str | int, what: str) -> int:
    """Parse a whole number >= 1: 4096, "4,096", "64k", "500M", "10B" (or G), "1.5T"; k is 1,000.

    Args: what: name of the setting, for messages: "--tokens".
    Raises: ConfigError for anything else.
    """
    found = _AMOUNT.fullmatch(str(given).strip())
    # As an exact fraction: in floats 0.7 * 10**12 is not a whole number.
    amount = 0 if found is None else int(Fraction(re.sub("[_,]", "", found[1])) * _FACTORS[found[2].lower()])
    if amount < 1:
        raise ConfigError(
            f"{what} got {str(given)!r}; expected a number from 1 up, such as 4096, 500M or 10B."
        )
    return amount


def short_amount(number: float) -> str:
    """Format a number in at most five characters: 950, 12.3k, 4.5M, 10B."""
    for factor, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= 0.9995 * factor:
            return f"{number / factor:.3g}{letter}"
    return f"{number:.0f}"
