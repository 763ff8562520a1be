"""Charts of far context: the distance up to which documents use their context, and the gain at each distance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from longlode.report.charts import Series, legend, lines
from longlode.report.far_context import FarContext, octave, thousands
from longlode.report.svg import CHAR_WIDTH, Scale, Sheet, both, padded
from longlode.report.text import number

MIN_DOCUMENTS = 5
"""Fewest documents for quartiles at a distance."""
_SURE = 2.0
"""Standard errors above zero from which a column is drawn in colour."""


@dataclass(frozen=True)
class CountRow:
    """A named count of documents. limited: how many of them the chart draws lighter. colour: a class of page.css."""

    name: str
    count: int
    limited: int
    colour: str


def reach_rows(far: FarContext, num_without: int) -> list[CountRow]:
    """Documents by the distance of their context use, the farthest first, then those below the gate or without a score.

    limited: documents too short to be measured farther.
    """
    passes, measured = far.passes, far.measured
    rows = []
    ends = sorted({2 * start for start in far.starts}, reverse=True)
    for place, end in enumerate([*ends, 0]):
        here = passes & (far.reach == end)
        name = (
            f"up to {thousands(end)} tokens back" if end else f"not beyond {thousands(far.starts[0])} tokens"
        )
        level = max(2, 7 - round(5 * place / max(1, len(ends))))
        limited = int((here & (measured <= end)).sum()) if end else 0
        rows.append(CountRow(name, int(here.sum()), limited, f"h{level}"))
    first = next((place for place, row in enumerate(rows) if row.count), len(rows) - 1)
    rows = rows[first:]
    stopped = int((far.gate < 0).sum())
    rows.append(CountRow("stopped by the gate", stopped, 0, "c5"))
    if num_without:
        rows.append(CountRow("no score", num_without, 0, "none"))
    return rows


def reach_chart(rows: Sequence[CountRow], *, key: str) -> Markup:
    """Bars of documents by the distance of their context use; the number of each beside it."""
    most = max(1, *(row.count for row in rows))
    desc = "; ".join(f"{row.name}: {row.count} documents" for row in rows)
    longest = max(len(row.name) for row in rows)

    def draw(width: int, suffix: str) -> Markup:
        left, tall = longest * CHAR_WIDTH + 8, 26
        title = "Documents by how far they use their context"
        sheet = Sheet(width, tall * len(rows) + 6, key=f"{key}-{suffix}", title=title, desc=desc)
        scale = Scale(0, most, left, width - 56)
        for place, row in enumerate(rows):
            y = 4 + tall * place
            sheet.text(left - 8, y + 15, row.name, "tick", "end")
            if row.count:
                wide = max(2.0, scale(row.count) - left)
                sheet.add("rect", x=left, y=y, width=wide, height=20, cls=f"amount {row.colour}")
                if row.limited:
                    part = wide * row.limited / row.count
                    sheet.add("rect", x=left + wide - part, y=y, width=part, height=20, cls="limited")
            sheet.text(scale(row.count) + 7, y + 15, f"{row.count:,}", "note")
        sheet.add("line", x1=left, x2=left, y1=0, y2=tall * len(rows) + 4, cls="axis")
        return sheet.render()

    return both(draw)


def corpus_profile(far: FarContext, *, key: str) -> Markup | None:
    """The middle half of the gains at each distance, of documents that pass the gate and of the others."""
    series = []
    for name, chosen in (("pass the gate", far.passes), ("stopped by the gate", far.gate < 0)):
        gains = far.gains[chosen]
        known = [d for d in range(len(far.starts)) if np.isfinite(gains[:, d]).sum() >= MIN_DOCUMENTS]
        if len(known) < 2:
            continue
        low, middle, high = (np.nanquantile(gains[:, known], q, axis=0).tolist() for q in (0.25, 0.5, 0.75))
        x = [far.starts[d] * 2**0.5 for d in known]
        series.append(Series(name, x, middle, low, high, points=True))
    if not series:
        return None
    title = "Worth of context by distance, over the corpus"
    chart = lines(
        series,
        key=key,
        title=title,
        x_label="distance of the context, tokens back",
        y_label="gain, nats per token",
        log_x=True,
        reference=0.0,
    )
    return Markup("{}{}").format(legend([one.name for one in series]), chart)


@dataclass(frozen=True)
class ProfileScale:
    """The one vertical scale, nats per token, of all profiles of a page."""

    low: float
    high: float


def profile_scale(profiles: Sequence[tuple[np.ndarray, np.ndarray]]) -> ProfileScale:
    """The range of the gains and their errors over all documents shown, zero included."""
    ends = [0.0]
    for gains, errors in profiles:
        known = np.isfinite(gains)
        error = np.where(np.isfinite(errors), errors, 0.0)
        ends += (gains - error)[known].tolist() + (gains + error)[known].tolist()
    low, high = padded(min(ends), max(ends), share=0.06)
    return ProfileScale(low if min(ends) < 0 else 0.0, high)


def profile_chart(
    starts: Sequence[int],
    gains: np.ndarray,
    errors: np.ndarray,
    reach: float,
    scale: ProfileScale,
    *,
    key: str,
    name: str,
) -> Markup:
    """A document's profile: a column for each octave of distance with a whisker of one standard error.

    gains, errors: nats per token `[D]`. Columns less than two standard errors above zero are grey; a distance that the
    document is too short for has no column. reach: tokens, marked by a line.
    """
    width, height, left, top = 420, 196, 46, 30
    told = ", ".join(
        f"{octave(start)} tokens back {number(float(gain))}"
        for start, gain in zip(starts, gains, strict=True)
        if np.isfinite(gain)
    )
    sheet = Sheet(width, height, key=key, title=f"Profile by distance of {name}", desc=told or "no distance")
    bottom = height - 50
    up = Scale(scale.low, scale.high, bottom, top)
    sheet.text(2, 14, "gain, nats per token", "label")
    for value in up.ticks(4):
        sheet.add("line", x1=left, x2=width - 6, y1=up(value), y2=up(value), cls="gridline")
        sheet.text(left - 6, up(value) + 4, number(value, 2), "tick", "end")
    step = (width - left - 8) / len(starts)
    for place, (start, gain, error) in enumerate(zip(starts, gains, errors, strict=True)):
        middle = left + (place + 0.5) * step
        sheet.text(middle, bottom + 17, octave(start), "tick", "middle")
        if np.isfinite(gain):
            _column(sheet, up, middle, 0.62 * step, float(gain), float(error))
        else:
            sheet.text(middle, up(0) - 6, "too short", "faint", "middle")
        if reach == 2 * start:
            x = left + (place + 1) * step
            sheet.add("line", x1=x, x2=x, y1=top - 8, y2=bottom, cls="reach")
    sheet.add("line", x1=left, x2=width - 6, y1=up(0), y2=up(0), cls="axis")
    sheet.text((left + width) / 2, height - 10, "distance of the context, tokens back", "label", "middle")
    return Markup('<div class="chart small">{}</div>').format(sheet.render())


def _column(sheet: Sheet, up: Scale, middle: float, wide: float, gain: float, error: float) -> None:
    zero, end = up(0), up(gain)
    sure = np.isfinite(error) and gain > _SURE * error
    cls = "fill c0" if sure else "fill c5"
    sheet.add(
        "rect", x=middle - wide / 2, y=min(zero, end), width=wide, height=max(1.0, abs(zero - end)), cls=cls
    )
    head = end
    if np.isfinite(error):
        low, head = up(gain - error), up(gain + error)
        sheet.add("line", x1=middle, x2=middle, y1=low, y2=head, cls="whisker")
        for y in (low, head):
            sheet.add("line", x1=middle - 4, x2=middle + 4, y1=y, y2=y, cls="whisker")
    sheet.text(middle, min(head, zero) - 5, number(gain, 2), "note halo", "middle")
