"""Explanation of one document, from explain.json: signs of the gate, weakest boundary, words that carry gain."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from longlode.report.svg import NARROW, Scale, Sheet, both, padded, x_axis, y_axis
from longlode.report.text import as_number, clipped, number, visible
from longlode.report.words import Place, snippet

NUM_SIGNS = 3
"""Number of signs shown for and against."""
MAX_CARRIERS = 5
_LEAST_NATS = 0.05
"""Signs that move the log-odds by less are not shown, nats."""
_SIDE_CHARS = 400
_FACTORS = {
    "order": "passages need the text before them",
    "seams": "rare words link both sides of every cut",
    "names": "rare words come back far away",
}


@dataclass(frozen=True)
class Sign:
    """Evidence behind a gate or a score: a kind of measurement. value: with its unit."""

    name: str
    value: str
    about: str


@dataclass(frozen=True)
class Boundary:
    """Weakest boundary of a document. text: a sentence. chart: all cuts of the document, or None."""

    where: str
    text: str
    before: str
    after: str
    chart: Markup | None


@dataclass(frozen=True)
class Carrier:
    """A word or a pair of words that carries far gain: nats per token, the number of its returns, and one example."""

    text: str
    gain: float
    num_returns: int | None
    distance: int | None
    before: Place
    again: Place


@dataclass(frozen=True)
class Explanation:
    """Data for the template. rivals: other kinds of text that it could be. signs: for, then against."""

    rivals: str
    signs_for: list[Sign]
    signs_against: list[Sign]
    factors: list[Sign]
    boundary: Boundary | None
    carriers: list[Carrier]


def explanation(one: Mapping[str, Any], key: str, name: str) -> Explanation:
    """Lay out an entry of explain.json; absent parts are empty. key: prefix of its ids. name: of the document."""
    told = _mapping(one.get("explanation"))
    gate, profile = _mapping(told.get("gate")), _mapping(told.get("profile"))
    signs = [
        (nats, Sign(clipped(sign.get("name", ""), 40), _signed(nats), clipped(sign.get("about") or "", 160)))
        for sign in _mappings(gate.get("signs"))
        if (nats := as_number(sign.get("nats"))) is not None
    ]
    signs.sort(key=lambda sign: -abs(sign[0]))
    boundary = told.get("boundary") or one.get("boundary") or one.get("seam")
    carriers = (_carrier(given) for given in _mappings(profile.get("carriers"))[:MAX_CARRIERS])
    return Explanation(
        rivals=_rivals(gate),
        signs_for=[sign for nats, sign in signs if nats >= _LEAST_NATS][:NUM_SIGNS],
        signs_against=[sign for nats, sign in signs if nats <= -_LEAST_NATS][:NUM_SIGNS],
        factors=_factors(one),
        boundary=_boundary(_mapping(boundary), key, name),
        carriers=[carrier for carrier in carriers if carrier is not None],
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else number(value)


def _rivals(gate: Mapping[str, Any]) -> str:
    found = [
        f"{clipped(rival.get('about') or rival.get('family') or '', 100)} ({100 * share:.0f} %)"
        for rival in _mappings(gate.get("rivals"))
        if (share := as_number(rival.get("share"))) is not None and share >= 0.01
    ]
    return "; ".join(found)


def _factors(one: Mapping[str, Any]) -> list[Sign]:
    """The factors of a coherence score."""
    return [
        Sign(clipped(name, 40), f"{100 * share:.1f} %", _FACTORS.get(str(name), ""))
        for name, value in _mapping(one.get("factors")).items()
        if (share := as_number(value)) is not None
    ]


def _boundary(given: Mapping[str, Any], key: str, name: str) -> Boundary | None:
    before, after = (re.sub(r"\s+", " ", visible(str(given.get(side) or ""))) for side in ("before", "after"))
    if not before and not after:
        return None
    share, typical, token = (as_number(given.get(field)) for field in ("share", "typical", "token"))
    span, words = as_number(given.get("span_tokens")), as_number(given.get("span"))
    told = ""
    if share is not None and span is not None:
        told = (
            f"The {span:,.0f} tokens on either side share {share:.2f} of what passages as far apart share in this "
            "document (1: as usual)"
        )
        told += "." if typical is None else f"; the median over its cuts is {typical:.2f}."
    elif share is not None and words is not None:
        told = f"{100 * share:.0f} % of the rare words after it, by weight, stand in the {words:,.0f} words before it"
        told += "." if typical is None else f"; usual in this document: {100 * typical:.0f} %."
    character = as_number(given.get("character"))
    where = f"at token {token:,.0f}" if token is not None else ""
    if not where and character is not None:
        where = f"at character {character:,.0f}"
    curve = [
        (x, y)
        for point in (given["curve"] if isinstance(given.get("curve"), list) else [])
        if isinstance(point, list) and len(point) == 2
        and (x := as_number(point[0])) is not None and (y := as_number(point[1])) is not None
    ]  # fmt: skip
    chart = None
    if len(curve) > 1 and token is not None and share is not None:
        chart = boundary_chart(curve, (token, share), key=f"{key}-boundary", name=clipped(name, 80))
    return Boundary(where, told, before[-_SIDE_CHARS:], clipped(after, _SIDE_CHARS), chart)


def boundary_chart(
    curve: Sequence[tuple[float, float]], weakest: tuple[float, float], *, key: str, name: str
) -> Markup:
    """Chart of what the two sides of each cut share, along a document: (token, share), the weakest marked."""
    shares = [share for _, share in curve]
    low, high = padded(min(*shares, weakest[1], 0.0), max(*shares, 1.0))

    def draw(width: int, suffix: str) -> Markup:
        height = 168 if width > NARROW else 150
        left, right, top, bottom = 46, width - 14, 26, height - 44
        told = f"{len(curve)} cuts; weakest at token {weakest[0]:,.0f}: {number(weakest[1])}"
        sheet = Sheet(width, height, key=f"{key}-{suffix}", title=f"Boundaries along {name}", desc=told)
        across, up = (
            Scale(0.0, max(x for x, _ in curve), left, right),
            Scale(max(0.0, low), high, bottom, top),
        )
        y_axis(sheet, up, left, right, "shared by both sides, 1: as usual")
        x_axis(sheet, across, bottom, top, "position in the document, tokens")
        sheet.add("line", x1=left, x2=right, y1=up(1.0), y2=up(1.0), cls="reference")
        sheet.path([(across(x), up(y)) for x, y in curve], "line c0")
        x, y = across(weakest[0]), up(weakest[1])
        sheet.add("line", x1=x, x2=x, y1=top - 6, y2=bottom, cls="reach")
        sheet.add("circle", cx=x, cy=y, r=4.5, cls="mark c1")
        return sheet.render()

    return both(draw)


def _carrier(given: Mapping[str, Any]) -> Carrier | None:
    gain, count = as_number(given.get("gain_nats")), as_number(given.get("num_returns"))
    for one in _mappings(given.get("returns")):
        before, again = _place(one.get("before")), _place(one.get("again"))
        if gain is not None and before is not None and again is not None:
            distance = as_number(one.get("distance_tokens"))
            return Carrier(
                text=clipped(given.get("text") or "", 60),
                gain=gain,
                num_returns=None if count is None else round(count),
                distance=None if distance is None else round(distance),
                before=before,
                again=again,
            )
    return None


def _place(value: Any) -> Place | None:
    given = _mapping(value)
    token = as_number(given.get("token"))
    if token is None:
        return None
    return snippet(round(token), *(given.get(side) for side in ("before", "text", "after")))
