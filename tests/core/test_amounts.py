"""Numbers as people write them."""

import pytest

from longlode.core.amounts import parse_amount, short_amount
from longlode.core.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("10B", 10**10),
        ("500m", 5 * 10**8),
        ("64k", 64_000),
        ("4,096", 4096),
        (7, 7),
        ("0.7T", 7 * 10**11),
        ("1.5 G", 15 * 10**8),
    ],
)
def test_amounts(given, number):
    assert parse_amount(given, "x") == number


@pytest.mark.parametrize("given", ["", "ten", "-5", "0", 0, "0.2", "5KB", "1e9", "B"])
def test_what_is_no_amount(given):
    with pytest.raises(ConfigError, match="--tokens got"):
        parse_amount(given, "--tokens")


@pytest.mark.parametrize("number", [0, 7, 999, 1000, 12_345, 999_499, 999_600, 10**9, 4_560_000_000_000])
def test_short_amounts_are_near_and_short(number):
    shown = short_amount(number)
    assert len(shown) <= 5
    assert number == 0 or abs(parse_amount(shown, "x") / number - 1) < 0.006
