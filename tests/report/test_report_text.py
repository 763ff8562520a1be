"""What hides is shown; numbers read alike; JSON cannot leave its script element."""

import json

import pytest
from markupsafe import Markup

from longlode.report.text import clipped, compact, duration, ending, json_for_script, number, shown, visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc\tdef\n", "abc\tdef\n"),
        ("a\r\nb", "a\nb"),
        ("nul\x00", "nul\u2039U+0000\u203a"),
        ("exe\u202egnp", "exe\u2039U+202E\u203agnp"),
        ("\u2066x\u2069", "\u2039U+2066\u203ax\u2039U+2069\u203a"),
        ("\ud800", "\u2039U+D800\u203a"),
        ("\U000e0041", "\u2039U+E0041\u203a"),
        ("\u2028\x85\ufeff", "\u2039U+2028\u203a\u2039U+0085\u203a\u2039U+FEFF\u203a"),
        (
            "שלום עולم 漢字 e\u0301 \U0001f469\u200d\U0001f52c",
            "שלום עולم 漢字 e\u0301 \U0001f469\u200d\U0001f52c",
        ),
    ],
)
def test_visible(text, expected):
    assert visible(text) == expected
    visible(text).encode()


def test_every_bidi_control_is_shown():
    controls = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    for code in controls:
        assert visible(chr(code)) == f"\u2039U+{code:04X}\u203a"


def test_shown_keeps_markup_and_nothing_else():
    assert shown(Markup("<b>")) == Markup("<b>")
    assert not isinstance(shown("<b>"), Markup)
    assert shown(None) == "\u2013"
    assert shown(1234567) == "1,234,567"
    assert shown(True) == "True"
    assert shown(float("nan")) == "\u2013"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.123456, "0.123"),
        (-0.5, "\u22120.500"),
        (12.3456, "12.3"),
        (12345.6, "12,346"),
        (0.00012345, "0.0001"),
        (1e-7, "1.0e\u221207"),
        (float("inf"), "\u2013"),
        ("7", "\u2013"),
        (None, "\u2013"),
    ],
)
def test_number(value, text):
    assert number(value) == text


def test_other_forms():
    assert [compact(x) for x in (0.05, 1500, 2_000_000, -3e9)] == ["0.05", "1.5k", "2M", "\u22123B"]
    assert [duration(x) for x in (8.44, 200, 7500, None)] == ["8.4 s", "3 min 20 s", "2 h 5 min", "\u2013"]
    assert clipped("a" * 50, 10) == "a" * 9 + "\u2026"
    assert clipped("short", 10) == "short"
    assert ending("some/long/path.py", 8) == "\u2026path.py"[-8:]
    assert ending("short", 10) == "short"


def test_json_cannot_end_its_element():
    value = {"a": ["</script><script>alert(1)</script>", "<!-- & -->", "\u2028\u2029"]}
    text = json_for_script(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value
