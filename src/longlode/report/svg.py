"""SVG drawing: a sheet that escapes its input, scales with round ticks, and a chart's wide and narrow version.

Styles are in page.css alone: shapes carry classes, never style attributes, which the page's CSP would block.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from longlode.report.text import compact, visible

WIDE, NARROW = 720, 350
CHAR_WIDTH = 6.6  # of the 12 px axis font, a little generous


class Sheet:
    """One SVG image with a title and a description for those who cannot see it."""

    def __init__(self, width: float, height: float, *, key: str, title: str, desc: str) -> None:
        """Start an image of `width` x `height` px; `key` is unique on the page."""
        self.width, self.height = width, height
        self._key, self._title, self._desc = key, title, desc
        self._parts: list[str] = []

    def add(self, name: str, text: str | None = None, **attributes: object) -> None:
        """Add an element; `cls` becomes class, `_` in names `-`, numbers are shortened, all is escaped."""
        written = "".join(
            f' {_attribute(key)}="{escape(_value(value))}"'
            for key, value in attributes.items()
            if value is not None
        )
        self._parts.append(
            f"<{name}{written}/>" if text is None else f"<{name}{written}>{escape(visible(text))}</{name}>"
        )

    def text(self, x: float, y: float, text: str, cls: str = "label", anchor: str = "start") -> None:
        """Add text with its baseline at (x, y)."""
        self.add("text", text, x=x, y=y, cls=cls, text_anchor=anchor)

    def path(self, points: Sequence[tuple[float, float]], cls: str, *, close: bool = False) -> None:
        """Add a polyline, or with `close` the polygon inside it; fewer than two points draw nothing."""
        if len(points) > 1:
            self.add(
                "path", d="M" + "L".join(f"{_value(x)} {_value(y)}" for x, y in points) + "Z" * close, cls=cls
            )

    def render_decorative(self, cls: str) -> Markup:
        """The image as markup that screen readers skip, for a mark beside its own name."""
        size = f"0 0 {_value(self.width)} {_value(self.height)}"
        inner = Markup("".join(self._parts))
        return Markup('<svg class="{}" viewBox="{}" aria-hidden="true">{}</svg>').format(cls, size, inner)

    def render(self) -> Markup:
        """The image as markup."""
        key = escape(self._key)
        return Markup(
            f'<svg viewBox="0 0 {_value(self.width)} {_value(self.height)}" role="img" '
            f'aria-labelledby="{key}-t {key}-d"><title id="{key}-t">{escape(visible(self._title))}</title>'
            f'<desc id="{key}-d">{escape(visible(self._desc))}</desc>{"".join(self._parts)}</svg>'
        )


def _attribute(name: str) -> str:
    return "class" if name == "cls" else name.replace("_", "-")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)


@dataclass(frozen=True)
class Scale:
    """A map of numbers [low, high] to pixels [start, stop], linear or by the logarithm."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value; values outside are held at the edge."""
        low, high, x = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, x = math.log(low), math.log(high), math.log(x)
        return self.start + (self.stop - self.start) * ((x - low) / (high - low) if high > low else 0.5)

    def ticks(self, count: int) -> list[float]:
        """Round values inside, about `count` of them: powers of 2 on a log scale, else steps of 1, 2, 5."""
        if self.log:
            powers = range(math.ceil(math.log2(self.low)), math.floor(math.log2(self.high)) + 1)
            return [2.0**p for p in powers][:: max(1, math.ceil(len(powers) / count))]
        if self.high <= self.low:
            return [self.low]
        step = round_step((self.high - self.low) / count)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def round_step(rough: float) -> float:
    """The next larger of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def padded(low: float, high: float, *, share: float = 0.05) -> tuple[float, float]:
    """A range with a margin at both ends; a single value gets a range around it."""
    margin = (high - low) * share if high > low else max(abs(high) * 0.1, 0.5)
    return low - margin, high + margin


def x_axis(sheet: Sheet, scale: Scale, y: float, top: float, label: str) -> None:
    """Ticks, grid lines up to `top`, and a label, below the line at `y`."""
    width = abs(scale.stop - scale.start)
    for value in scale.ticks(max(3, int(width // 90))):
        x = scale(value)
        sheet.add("line", x1=x, x2=x, y1=top, y2=y, cls="gridline")
        sheet.text(x, y + 17, f"{value:,.0f}" if scale.log else compact(value), "tick", "middle")
    sheet.add("line", x1=scale.start, x2=scale.stop, y1=y, y2=y, cls="axis")
    sheet.text((scale.start + scale.stop) / 2, y + 37, label, "label", "middle")


def y_axis(sheet: Sheet, scale: Scale, x: float, right: float, label: str) -> None:
    """Ticks, grid lines to `right`, and a label above the axis, left of the line at `x`."""
    for value in scale.ticks(max(3, int(abs(scale.stop - scale.start) // 45))):
        y = scale(value)
        sheet.add("line", x1=x, x2=right, y1=y, y2=y, cls="gridline")
        sheet.text(x - 8, y + 4, compact(value), "tick", "end")
    sheet.text(2, min(scale.start, scale.stop) - 12, label, "label")


def marker(sheet: Sheet, x: float, y: float, series: int) -> None:
    """A small shape in a series' colour: the shape distinguishes series where colour does not."""
    cls, r = f"mark c{series % 6}", 3.6
    if series % 4 == 0:
        sheet.add("circle", cx=x, cy=y, r=r, cls=cls)
    elif series % 4 == 1:
        sheet.add("rect", x=x - r, y=y - r, width=2 * r, height=2 * r, cls=cls)
    else:
        up = 1.3 * r if series % 4 == 2 else -1.3 * r
        sheet.add(
            "path",
            d=f"M{x:.2f} {y - up:.2f}L{x + 1.2 * r:.2f} {y + up:.2f}L{x - 1.2 * r:.2f} {y + up:.2f}Z",
            cls=cls,
        )


def both(draw: Callable[[int, str], Markup]) -> Markup:
    """A chart drawn twice, for wide and for narrow screens, so that its text stays readable; CSS shows one.

    draw: (width in px, suffix of its keys) -> the image.
    """
    wide, narrow = draw(WIDE, "w"), draw(NARROW, "n")
    return Markup('<div class="chart wide">{}</div><div class="chart narrow">{}</div>').format(wide, narrow)
