"""The section on dependency: a document's segments against its earlier ones, both texts beside the map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from longlode.report.charts import level
from longlode.report.svg import Scale, Sheet, round_step
from longlode.report.text import as_number, clipped, json_for_script, number, visible

MAX_MAPS = 12
_SIZE, _LEFT, _TOP = 420, 44, 8
_SEGMENT_CHARS = 4000
COLOURS = ("strength", "gain")


@dataclass(frozen=True)
class Cell:
    """What segment `j` does for the later segment `i`; gain in nats per token."""

    i: int
    j: int
    strength: float
    gain: float | None


@dataclass(frozen=True)
class MapView:
    """What the template needs of one map. strongest: its strongest cells, the first is selected."""

    anchor: str
    id: str
    place: str
    label: str
    score: float | None
    num_segments: int
    num_pairs: int
    image: Markup
    data: Markup
    strongest: list[Cell]
    texts: tuple[str, str]


def map_views(explained: Sequence[Mapping[str, Any]], key: str, tops: Sequence[float]) -> list[MapView]:
    """Lay out up to MAX_MAPS documents; `tops` end the colour scales, the same for all maps of a page."""
    documents = [(index, one, _cells(one)) for index, one in enumerate(explained[:MAX_MAPS])]
    return [_map_view(one, cells, f"{key}-map{index}", tops) for index, one, cells in documents if cells]


def colour_tops(explained: Sequence[Mapping[str, Any]]) -> list[float]:
    """The upper ends of the colour scales for strength and gain, over all documents of a page."""
    cells = [cell for one in explained for cell in _cells(one)]
    return [_top_value(cells, colour) for colour in COLOURS]


def _cells(document: Mapping[str, Any]) -> list[Cell]:
    """The usable entries of `pairs`: [i, j, strength, gain] with i > j >= 0."""
    pairs = document.get("pairs")
    cells = []
    for entry in pairs if isinstance(pairs, list) else []:
        if not isinstance(entry, list) or len(entry) < 3:
            continue
        i, j, strength = entry[:3]
        value = as_number(strength)
        if isinstance(i, int) and isinstance(j, int) and 0 <= j < i and value is not None:
            cells.append(Cell(i, j, value, as_number(entry[3]) if len(entry) > 3 else None))
    return cells


def _top_value(cells: Sequence[Cell], colour: str) -> float:
    values = [value for cell in cells if (value := getattr(cell, colour)) is not None and value > 0]
    return round_step(float(np.quantile(values, 0.99))) if values else 1.0


def _map_view(document: Mapping[str, Any], cells: list[Cell], anchor: str, tops: Sequence[float]) -> MapView:
    given = document.get("segments")
    segments = [visible(str(text))[:_SEGMENT_CHARS] for text in given] if isinstance(given, list) else []
    size = max(len(segments), 1 + max(cell.i for cell in cells))
    strongest = sorted(cells, key=lambda cell: -cell.strength)[:5]
    data = {
        "segments": segments,
        "size": size,
        "cells": [
            [c.i, c.j, round(c.strength, 4), None if c.gain is None else round(c.gain, 4)] for c in cells
        ],
    }
    first = strongest[0]
    texts = tuple(segments[k] if k < len(segments) else "" for k in (first.j, first.i))
    row = document.get("row")
    return MapView(
        anchor=anchor,
        id=clipped(document.get("id", ""), 120),
        place=clipped(document.get("file") or "", 160) + ("" if row is None else f", row {row}"),
        label=clipped(document.get("label") or "", 20),
        score=as_number(document.get("score")),
        num_segments=len(segments),
        num_pairs=len(cells),
        image=_image(document, cells, size, anchor, tops),
        data=json_for_script(data),
        strongest=strongest,
        texts=(texts[0], texts[1]),
    )


def _image(
    document: Mapping[str, Any], cells: Sequence[Cell], size: int, anchor: str, tops: Sequence[float]
) -> Markup:
    best = max(cells, key=lambda cell: cell.strength)
    sheet = Sheet(
        _LEFT + _SIZE + 8,
        _TOP + _SIZE + 42,
        key=anchor,
        title=f"Dependency map of {clipped(document.get('id', ''), 80)}",
        desc=f"{len(cells)} pairs of {size} segments. The strongest: segment {best.i} after segment "
        f"{best.j}, strength {number(best.strength)}.",
    )
    unit = _SIZE / size
    place = f"translate({_LEFT} {_TOP}) scale({unit:.6f})"
    sheet.add("path", d=f"M0 0L0 {size}L{size} {size}Z", cls="ground", transform=place)
    for colour, top in zip(COLOURS, tops, strict=True):
        for name, outline in _outlines(cells, colour, top).items():
            sheet.add("path", d=outline, cls=f"cell {name} layer-{colour}", transform=place)
    scale = Scale(0, size, 0, _SIZE)
    for value in (tick for tick in scale.ticks(6) if tick < size and tick == int(tick)):
        middle = scale(value + 0.5)
        sheet.text(_LEFT - 6, _TOP + middle + 4, str(int(value)), "tick", "end")
        sheet.text(_LEFT + middle, _TOP + _SIZE + 17, str(int(value)), "tick", "middle")
    sheet.text(_LEFT + _SIZE / 2, _TOP + _SIZE + 37, "earlier segment j", "label", "middle")
    sheet.add(
        "text",
        "later segment i",
        cls="label",
        text_anchor="middle",
        transform=f"translate(11 {_TOP + _SIZE / 2}) rotate(-90)",
    )
    sheet.add("rect", x=best.j, y=best.i, width=1, height=1, cls="cursor", transform=place)
    return sheet.render()


def _outlines(cells: Sequence[Cell], colour: str, top: float) -> dict[str, str]:
    """One path a colour level: thousands of cells in a few elements."""
    parts: dict[str, list[str]] = {}
    for cell in cells:
        value = getattr(cell, colour)
        if value is not None:
            parts.setdefault(level(value, top), []).append(f"M{cell.j} {cell.i}h1v1h-1z")
    return {name: "".join(path) for name, path in sorted(parts.items())}
