"""The stack as text."""

import pytest

from longlode.core.errors import ConfigError
from longlode.mixers import parse_stack


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("D*3", "DDD"),
        ("DS*2", "DSDS"),
        ("DADDG", "DADDG"),
        ("D A D*3", "DADDD"),
        ("DA*1 S*2  G", "DASSG"),
    ],
)
def test_reads(text, layers):
    assert parse_stack(text) == layers


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("DXD", r"'DXD' cannot be read at position 2: 'X' is no mixer; use D \(delta_net\), G "),
        ("d*2", "'d' is no mixer"),
        ("D *3", "position 3: '\\*' has no letters"),
        ("D*0", "position 3: '0' is no count"),
        ("D*", "'' is no count"),
        ("D*-1", "'-1' is no count"),
        ("D*2*3", r"'2\*3' is no count"),
        ("D*٣", "no count"),
        ("D*1025", "more than 1024 layers"),
        ("D*99999999999", "no count"),
    ],
)
def test_refuses(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_stack(text)
