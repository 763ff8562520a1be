"""Pairwise map of a document: segments against earlier ones, with both texts."""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from longlode.report.charts import level
from longlode.report.svg import Scale, Sheet, round_step
from longlode.report.text import as_number, clipped, json_for_script, number, visible
from longlode.report.words import WordsView, words_view

_SIZE, _LEFT, _TOP = 420, 44, 8
_SEGMENT_CHARS = 4000
COLOURS = ("strength", "gain")
NUM_GAINED = 8
"""Number of words of a later segment that are highlighted, as in `longlode explain`."""
_PIECE_CHARS = 80
_WORD = re.compile(r"\w+|[^\w\s]+|\s+")


@dataclass(frozen=True)
class Cell:
    """Effect of segment `j` on the later segment `i`; gain in nats per token."""

    i: int
    j: int
    strength: float
    gain: float | None


@dataclass(frozen=True)
class Gains:
    """A later segment token by token: pieces of [text, whether it gained most]; named, those as a sentence."""

    pieces: list[tuple[str, bool]]
    named: str


@dataclass(frozen=True)
class MapView:
    """Data for the template on one document's map.

    size: segments from the beginning of the document. strongest: its strongest cells, the first is selected, with its
    `texts` and, if known, its `gains`. marked: whether announced words are marked in it.
    """

    key: str
    id: str
    size: int
    num_pairs: int
    image: Markup
    data: Markup
    strongest: list[Cell]
    texts: tuple[str, str]
    gains: Gains | None
    marked: bool


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


def map_view(document: Mapping[str, Any], key: str, tops: Sequence[float]) -> MapView | None:
    """Lay out the map of a document in explain.json; None without pairs.

    Args: key, prefix of its ids on the page. tops, the ends of the colour scales, the same for all maps of a page.
    """
    cells = _cells(document)
    if not cells:
        return None
    given = document.get("segments")
    segments = [visible(str(text))[:_SEGMENT_CHARS] for text in given] if isinstance(given, list) else []
    size = max(len(segments), 1 + max(cell.i for cell in cells))
    strongest = sorted(cells, key=lambda cell: -cell.strength)[:5]
    words = words_view(document.get("order"), size)
    gains = _gains(document)
    first = (strongest[0].j, strongest[0].i)
    texts = tuple(segments[k] if k < len(segments) else "" for k in first)
    return MapView(
        key=key,
        id=clipped(document.get("id", ""), 120),
        size=size,
        num_pairs=len(cells),
        image=_image(document, cells, words, size, key, tops),
        data=json_for_script(_data(segments, size, cells, gains)),
        strongest=strongest,
        texts=(texts[0], texts[1]),
        gains=gains.get((first[1], first[0])),
        marked=bool(words and any(word.in_map for word in words.words)),
    )


def _data(
    segments: Sequence[str], size: int, cells: Sequence[Cell], gains: Mapping[tuple[int, int], Gains]
) -> dict[str, Any]:
    """Data for page.js: texts and numbers of every cell, and the pieces of those pairs that have them."""
    return {
        "segments": segments,
        "size": size,
        "cells": [
            [c.i, c.j, round(c.strength, 4), None if c.gain is None else round(c.gain, 4)] for c in cells
        ],
        "gains": [[i, j, one.pieces, one.named] for (i, j), one in gains.items()],
    }


def _gains(document: Mapping[str, Any]) -> dict[tuple[int, int], Gains]:
    """(i, j) -> the tokens of segment i and which of them gained most after segment j, where it is known."""
    given = document.get("strongest")
    found = {}
    for one in given if isinstance(given, list) else []:
        pieces = one.get("target_tokens") if isinstance(one, Mapping) else None
        if not isinstance(pieces, list):
            continue
        i, j = one.get("target"), one.get("source")
        known = [(str(piece[0]), as_number(piece[1])) for piece in pieces if _is_piece(piece)]
        if isinstance(i, int) and isinstance(j, int) and known and len(known) == len(pieces):
            found[i, j] = _gained_most(known)
    return found


def _is_piece(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _gained_most(tokens: Sequence[tuple[str, float | None]]) -> Gains:
    """Mark the NUM_GAINED words that gained most, as long as they gained anything; a word's gain is its tokens' sum."""
    words = _words(tokens)
    order = sorted((-gain, k) for k, (text, gain) in enumerate(words) if gain > 0 and re.match(r"\w", text))
    most = {k: -loss for loss, k in order[:NUM_GAINED]}
    names = [f"{clipped(words[k][0], 24)} {gain:.1f}" for k, gain in most.items()]
    joined: list[tuple[str, bool]] = []
    for k, (text, _) in enumerate(words):
        piece = visible(text)[:_PIECE_CHARS]
        if joined and joined[-1][1] == (k in most) and k not in most:
            joined[-1] = (joined[-1][0] + piece, False)
        else:
            joined.append((piece, k in most))
    return Gains(joined, ", ".join(names))


def _words(tokens: Sequence[tuple[str, float | None]]) -> list[tuple[str, float]]:
    """The text of tokens cut into words, signs and white space, with the gains of the tokens that begin in each."""
    cuts = list(_WORD.finditer("".join(text for text, _ in tokens)))
    starts = [cut.start() for cut in cuts]
    gains, at = [0.0] * len(cuts), 0
    for text, gain in tokens:
        # A token begins at its first letter: the white space before may belong to the word before, as in "a \n".
        first = at + len(text) - len(text.lstrip()) if text.strip() else at
        if gain is not None and text:
            gains[bisect_right(starts, first) - 1] += gain
        at += len(text)
    return [(cut[0], gain) for cut, gain in zip(cuts, gains, strict=True)]


def _image(
    document: Mapping[str, Any],
    cells: Sequence[Cell],
    words: WordsView | None,
    size: int,
    anchor: str,
    tops: Sequence[float],
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
    marked = (
        {(word.used.segment, word.announced.segment) for word in words.words if word.in_map} if words else ()
    )
    for i, j in sorted(marked):
        sheet.add("circle", cx=j + 0.5, cy=i + 0.5, r=0.32, cls="announced", transform=place)
    sheet.add("rect", x=best.j, y=best.i, width=1, height=1, cls="cursor", transform=place)
    return sheet.render()


def _outlines(cells: Sequence[Cell], colour: str, top: float) -> dict[str, str]:
    """One path per colour level, so that thousands of cells need few elements."""
    parts: dict[str, list[str]] = {}
    for cell in cells:
        value = getattr(cell, colour)
        if value is not None:
            parts.setdefault(level(value, top), []).append(f"M{cell.j} {cell.i}h1v1h-1z")
    return {name: "".join(path) for name, path in sorted(parts.items())}
