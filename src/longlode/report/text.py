"""Preparation of text for the page: hidden characters are shown, long texts cut, numbers formatted alike.

All text from a corpus or a record is untrusted until it has been through here. Escaping `<` is not enough: a
right-to-left override can reorder what a reader sees, and a zero-width character can hide what a search looks for.
"""

import math
import re
from typing import Any

import orjson
from markupsafe import Markup

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)
_DASH = "\u2013"


def visible(text: str) -> str:
    """Write every control, bidi, zero-width, tag and surrogate character as its code point, e.g. U+202E in
    angle quotes.

    Line ends and tabs stay; zero-width joiners stay, since scripts and emoji need them.
    """
    return _HIDDEN.sub(lambda found: f"\u2039U+{ord(found[0]):04X}\u203a", text.replace("\r\n", "\n"))


def shown(value: Any) -> Any:
    """Value that a template expression prints: Markup as it is, None as a dash, all else as visible text.

    Set as `finalize` of the template environment, so that no expression can skip it; autoescape comes after it.
    """
    if isinstance(value, Markup):
        return value
    if value is None:
        return _DASH
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return visible(str(value))


def clipped(value: Any, num_chars: int) -> str:
    """The first `num_chars` visible characters, with an ellipsis where text was cut."""
    text = visible(str(value))
    return text if len(text) <= num_chars else text[: num_chars - 1].rstrip() + "\u2026"


def ending(value: Any, num_chars: int) -> str:
    """The last `num_chars` visible characters, after an ellipsis where text was cut: of a path they say most."""
    text = visible(str(value))
    return text if len(text) <= num_chars else "\u2026" + text[1 - num_chars :].lstrip()


def one_line(text: str, num_chars: int) -> str:
    """The beginning of a text on one line, clipped."""
    return clipped(re.sub(r"\s+", " ", visible(text[: 4 * num_chars])).strip(), num_chars)


def as_number(value: Any) -> float | None:
    """A finite number, or None for anything else (a record may hold anything)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def number(value: Any, digits: int = 3) -> str:
    """A number as text: `digits` significant, at most 4 decimals, a true minus; a dash for no number."""
    x = as_number(value)
    if x is None:
        return _DASH
    if x == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(x))))
    text = f"{x:,.{min(decimals, 4)}f}" if abs(x) >= 5e-5 else f"{x:.1e}"
    return text.replace("-", "\u2212")


def compact(value: float, digits: int = 4) -> str:
    """A number for an axis: 1500 -> 1.5k, 2000000 -> 2M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{letter}".replace("-", "\u2212")
    return f"{value:.{digits}g}".replace("-", "\u2212")


def duration(seconds: Any) -> str:
    """Seconds as text: 8.4 s, 3 min 20 s, 2 h 5 min."""
    x = as_number(seconds)
    if x is None:
        return _DASH
    if x < 60:
        return f"{x:.1f} s"
    minutes, rest = divmod(round(x), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def json_for_script(value: Any) -> Markup:
    """JSON that is safe inside <script type="application/json">: nothing in it can end the element or a line.

    Its strings must have gone through `visible` before.
    """
    text = orjson.dumps(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
