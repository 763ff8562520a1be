"""Charts of the page: histograms, lines with bands, bars with intervals, a small matrix of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from longlode.report.svg import CHAR_WIDTH, NARROW, Scale, Sheet, both, marker, padded, x_axis, y_axis
from longlode.report.text import clipped, ending, number

_NUM_BINS = 60


@dataclass(frozen=True)
class Group:
    """A named set of values, e.g. the scores of one source."""

    name: str
    values: np.ndarray


@dataclass(frozen=True)
class Series:
    """A line: y over x, with an optional band [low, high] and optional faint raw points behind it."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    raw: Sequence[float] | None = None
    points: bool = False


@dataclass(frozen=True)
class Bar:
    """A value with an interval. series: its colour and shape; low and high may be None."""

    name: str
    value: float
    low: float | None
    high: float | None
    series: int


def histograms(
    groups: Sequence[Group], *, key: str, title: str, x_label: str, reference: float | None = None
) -> Markup:
    """One histogram per group, on one axis and one scale of counts; below each its quartiles and median.

    The axis ends where the values do, but at most three interquartile ranges beyond the quartiles of all values; the
    number of values beyond an edge is written there, and they are in no bar. reference: a vertical line.
    """
    low, high = padded(*_reach(np.concatenate([group.values for group in groups])), share=0.02)
    binned = [_binned(group, low, high) for group in groups]
    most = max(1, *(int(one.counts.max()) for one in binned))
    desc = "; ".join(
        f"{one.name}: {one.num} documents, median {number(one.quartiles[1])}{one.outside_words(low, high)}"
        for one in binned
    )

    def draw(width: int, suffix: str) -> Markup:
        row = 150 if len(groups) == 1 else 78
        left, right, top = 44, width - 12, 22
        sheet = Sheet(width, top + row * len(groups) + 48, key=f"{key}-{suffix}", title=title, desc=desc)
        scale = Scale(low, high, left, right)
        sheet.text(2, 14, "documents per bar", "label")
        x_axis(sheet, scale, top + row * len(groups), top, x_label)
        if reference is not None and low < reference < high:
            x = scale(reference)
            sheet.add("line", x1=x, x2=x, y1=top, y2=top + row * len(groups), cls="reference")
        for index, one in enumerate(binned):
            _histogram(sheet, one, index, scale, most, top + row * index, top + row * (index + 1))
        return sheet.render()

    return both(draw)


@dataclass(frozen=True)
class _Binned:
    """A group's values in bins: counts per bin, and the numbers below and above all bins."""

    name: str
    num: int
    quartiles: tuple[float, float, float]
    edges: np.ndarray
    counts: np.ndarray
    below: int
    above: int

    def outside_words(self, low: float, high: float) -> str:
        """Description of the values outside of the bins, for screen readers."""
        told = [
            f"{count} {where} {number(edge)}"
            for count, where, edge in ((self.below, "below", low), (self.above, "above", high))
            if count
        ]
        return f" ({', '.join(told)})" if told else ""


def _binned(group: Group, low: float, high: float) -> _Binned:
    edges = np.linspace(low, high, _NUM_BINS + 1)
    counts, _ = np.histogram(group.values, edges)
    q25, q50, q75 = (float(q) for q in np.quantile(group.values, [0.25, 0.5, 0.75]))
    below, above = int((group.values < low).sum()), int((group.values > high).sum())
    return _Binned(group.name, len(group.values), (q25, q50, q75), edges, counts, below, above)


def _reach(values: np.ndarray) -> tuple[float, float]:
    q25, q75 = (float(q) for q in np.quantile(values, [0.25, 0.75]))
    low, high = float(values.min()), float(values.max())
    if q75 > q25:
        low, high = max(low, q25 - 3 * (q75 - q25)), min(high, q75 + 3 * (q75 - q25))
    return low, high


def _histogram(
    sheet: Sheet, one: _Binned, index: int, scale: Scale, most: int, top: float, bottom: float
) -> None:
    base, height = bottom - 14, bottom - top - 34
    up = Scale(0, most, base, base - height)
    for value in (0, most):
        sheet.add("line", x1=scale.start, x2=scale.stop, y1=up(value), y2=up(value), cls="gridline")
        sheet.text(scale.start - 6, up(value) + 4, f"{value:,}", "tick", "end")
    for count, a, b in zip(one.counts, one.edges[:-1], one.edges[1:], strict=True):
        if count:
            tall, x = max(1.5, base - up(int(count))), scale(float(a))
            wide, cls = scale(float(b)) - x - 0.6, f"fill c{index % 6}"
            sheet.add("rect", x=x, y=base - tall, width=wide, height=tall, cls=cls)
    q25, q50, q75 = one.quartiles
    sheet.add("line", x1=scale(q25), x2=scale(q75), y1=base + 5, y2=base + 5, cls=f"box c{index % 6}")
    sheet.add("line", x1=scale(q50), x2=scale(q50), y1=base - height - 4, y2=base + 9, cls="median")
    figures = f"n {one.num:,} · median {number(q50)}"
    # A name must not run into the figures; it is bold, so a fifth wider than they are.
    room = int(((scale.stop - scale.start) / CHAR_WIDTH - len(figures) - 2) / 1.2)
    sheet.text(scale.start, top + 12, ending(one.name, max(8, min(44, room))), "name halo")
    sheet.text(scale.stop, top + 12, figures, "note halo", "end")
    if one.below:
        sheet.text(scale.start + 2, base - 4, f"\u25c2 {one.below:,} lower", "note halo outside")
    if one.above:
        sheet.text(scale.stop - 2, base - 4, f"{one.above:,} higher \u25b8", "note halo outside", "end")


def lines(
    series: Sequence[Series],
    *,
    key: str,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    reference: float | None = None,
    y_max: float | None = None,
) -> Markup:
    """Lines over a common axis. reference: a horizontal line kept in view. y_max: cuts what lies above."""
    xs = [x for line in series for x in line.x]
    ys = [
        y
        for line in series
        for part in (line.y, line.low, line.high)
        for y in (part if part is not None else ())
    ]
    ys += [] if reference is None else [reference]
    low, high = padded(min(ys), min(max(ys), y_max) if y_max is not None else max(ys))
    desc = "; ".join(f"{s.name}: from {number(s.y[0])} to {number(s.y[-1])}" for s in series if len(s.y))

    def draw(width: int, suffix: str) -> Markup:
        height = 320 if width > NARROW else 260
        left, right, top, bottom = 52, width - 14, 34, height - 48
        sheet = Sheet(width, height, key=f"{key}-{suffix}", title=title, desc=desc)
        across = Scale(min(xs), max(xs), left, right, log_x)
        up = Scale(low, high, bottom, top)
        y_axis(sheet, up, left, right, y_label)
        x_axis(sheet, across, bottom, top, x_label)
        if reference is not None:
            sheet.add("line", x1=left, x2=right, y1=up(reference), y2=up(reference), cls="reference")
        for index, line in enumerate(series):
            _line(sheet, line, index, across, up)
        return sheet.render()

    return both(draw)


def _line(sheet: Sheet, line: Series, index: int, across: Scale, up: Scale) -> None:
    x = [across(value) for value in line.x]

    def inside(values: Sequence[float]) -> list[tuple[float, float]]:
        return [(px, up(value)) for px, value in zip(x, values, strict=True) if value <= up.high]

    if line.low is not None and line.high is not None:
        upper = list(zip(x, map(up, line.high), strict=True))
        lower = list(zip(x, map(up, line.low), strict=True))
        sheet.path(upper + lower[::-1], f"band c{index % 6}", close=True)
    if line.raw is not None:
        sheet.path(inside(line.raw), f"raw c{index % 6}")
    points = inside(line.y)
    sheet.path(points, f"line c{index % 6} d{index % 4}")
    for px, py in points if line.points else []:
        marker(sheet, px, py, index)


def bars(
    rows: Sequence[tuple[str, Sequence[Bar]]],
    *,
    key: str,
    title: str,
    x_label: str,
    domain: tuple[float, float] | None = None,
    reference: float | None = None,
) -> Markup:
    """Horizontal bars from zero with interval whiskers, a block of bars for each named row.

    domain: the axis; default: zero to the largest value.   reference: a vertical line, e.g. chance.
    """
    every = [v for _, block in rows for b in block for v in (b.value, b.low, b.high) if v is not None]
    every += [] if reference is None else [reference]
    low, high = domain or padded(min(0.0, *every), max(0.0, *every), share=0.03)
    desc = "; ".join(f"{name}, {bar.name}: {number(bar.value)}" for name, block in rows for bar in block)
    longest = max(len(clipped(name, 24)) for name, _ in rows)

    def draw(width: int, suffix: str) -> Markup:
        left = min(longest * CHAR_WIDTH + 14, width * 0.34)
        bar_height, gap = 17, 14
        height = sum(bar_height * len(block) + gap for _, block in rows) + 56
        sheet = Sheet(width, height, key=f"{key}-{suffix}", title=title, desc=desc)
        scale = Scale(low, high, left, width - 52)
        x_axis(sheet, scale, height - 46, 8, x_label)
        if reference is not None:
            sheet.add("line", x1=scale(reference), x2=scale(reference), y1=8, y2=height - 46, cls="reference")
        y = 8.0 + gap / 2
        for name, block in rows:
            shown = clipped(name, max(6, int(left / CHAR_WIDTH) - 1))
            sheet.text(left - 8, y + bar_height * len(block) / 2 + 4, shown, "tick", "end")
            for bar in block:
                _bar(sheet, bar, scale, y, bar_height, width)
                y += bar_height
            y += gap
        return sheet.render()

    return both(draw)


def _bar(sheet: Sheet, bar: Bar, scale: Scale, y: float, height: float, width: float) -> None:
    zero, x, middle = scale(0.0), scale(bar.value), y + height / 2
    sheet.add(
        "rect", x=min(zero, x), y=y + 2, width=abs(x - zero), height=height - 4, cls=f"fill c{bar.series % 6}"
    )
    if bar.low is not None and bar.high is not None:
        sheet.add("line", x1=scale(bar.low), x2=scale(bar.high), y1=middle, y2=middle, cls="whisker")
        for end in (bar.low, bar.high):
            sheet.add("line", x1=scale(end), x2=scale(end), y1=middle - 4, y2=middle + 4, cls="whisker")
    marker(sheet, x, middle, bar.series)
    sheet.text(width - 4, middle + 4, number(bar.value), "note", "end")


def matrix(
    cells: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    key: str,
    title: str,
    x_label: str,
    y_label: str,
    top_value: float,
) -> Markup:
    """A small matrix of numbers, coloured from 0 to `top_value`; cells of None are dashed outlines."""
    desc = "; ".join(
        f"{row}: "
        + ", ".join(f"{column} {number(value, 2)}" for column, value in zip(columns, line, strict=True))
        for row, line in zip(rows, cells, strict=True)
    )
    width, left, top, cell_height = 350, 64, 26, 30
    cell_width = min(64.0, (width - left - 6) / max(1, len(columns)))
    sheet = Sheet(width, top + cell_height * len(rows) + 46, key=key, title=title, desc=desc)
    sheet.text(2, 14, y_label, "label")
    for r, (row, line) in enumerate(zip(rows, cells, strict=True)):
        y = top + r * cell_height
        sheet.text(left - 8, y + cell_height / 2 + 4, row, "tick", "end")
        for c, value in enumerate(line):
            x = left + c * cell_width
            cls = "empty" if value is None else f"cell {level(value, top_value)}"
            sheet.add("rect", x=x, y=y, width=cell_width - 1.5, height=cell_height - 1.5, rx=2, cls=cls)
            if value is not None:
                over = f"cellnote on-{level(value, top_value)}"
                written = f"{round(value, 2) + 0.0:.2f}".replace(
                    "-", "\u2212"
                )  # + 0.0: no minus before a zero
                sheet.text(x + cell_width / 2, y + cell_height / 2 + 4, written, over, "middle")
    bottom = top + cell_height * len(rows)
    for c, column in enumerate(columns):
        sheet.text(left + (c + 0.5) * cell_width, bottom + 16, column, "tick", "middle")
    sheet.text(left + cell_width * len(columns) / 2, bottom + 36, x_label, "label", "middle")
    return Markup('<div class="chart small">{}</div>').format(sheet.render())


def level(value: float, top_value: float) -> str:
    """The colour class of a value: h0 to h7 for eight equal steps from 0 to `top_value`, hn well below 0.

    A value slightly below 0 is noise and coloured like 0; hn starts half a step below.
    """
    if value < -top_value / 16:
        return "hn"
    return f"h{min(7, max(0, int(8 * value / top_value)))}"


def legend(names: Sequence[str], *, line: bool = True) -> Markup:
    """Legend of a chart: each series' mark and name."""
    items = []
    for index, name in enumerate(names):
        sheet = Sheet(28, 14, key="", title="", desc="")
        if line:
            sheet.path([(1, 7), (27, 7)], f"line c{index % 6} d{index % 4}")
        marker(sheet, 14, 7, index)
        items.append(Markup("<li>{}{}</li>").format(sheet.render_decorative("swatch"), clipped(name, 60)))
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))
