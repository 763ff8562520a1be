"""Draw the pictures of the concept pages: python docs/pictures.py

`score.svg` follows from the formula of the default score, `octaves.svg` is a sketch, and `context_curve.svg` is drawn
from docs/concepts/context_curve.json: rows of `longlode evaluate`, with the command that made them. `parallel.svg` is a
sketch for docs/parallel.md. A test draws all again and compares.
"""

import itertools
import json
import math
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "concepts"
COLOURS = ("#0072b2", "#009e73", "#d55e00", "#cc79a7")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 320, 70, 24, 190, 50
UNIT_NATS = 0.01


def score(z: float, m: float) -> float:
    """Return the default score for log-odds z of the gate and a mean gain of m nats per token."""
    return math.tanh(z / 2) * math.log1p(math.exp(m / UNIT_NATS)) if z >= 0 else z


class Axes:
    """A plot area with linear axes, collecting elements of the SVG."""

    def __init__(
        self, title: str, across: tuple[float, float], up: tuple[float, float], height: int = HEIGHT
    ) -> None:
        """Begin a picture: `across` and `up` are the ends of the axes."""
        self.across, self.up = across, up
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            'font-family="sans-serif" font-size="13">',
            f"<title>{title}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        ]

    def x(self, value: float) -> float:
        """Return the place of a value on the horizontal axis."""
        low, high = self.across
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        """Return the place of a value on the vertical axis."""
        low, high = self.up
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> None:
        """Add a line between two places of the page."""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{more}/>'
        )

    def text(
        self, x: float, y: float, words: str, anchor: str = "middle", colour: str = "#222", more: str = ""
    ) -> None:
        """Add words at a place of the page."""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{more}>{words}</text>'
        )

    def ticks(self, across: dict[float, str], up: list[float], digits: int) -> None:
        """Add grid lines and labels; `across` has the words at each value."""
        for value in up:
            place = self.y(value)
            self.line(LEFT, place, WIDTH - RIGHT, place, "#888" if value == 0 else "#e4e4e4")
            self.text(LEFT - 8, place + 4, f"{value:.{digits}f}", "end")
        for value, words in across.items():
            self.text(self.x(value), HEIGHT - BOTTOM + 18, words)

    def names(self, across: str, up: str) -> None:
        """Add the names of the axes."""
        self.text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 10, across)
        middle = (TOP + HEIGHT - BOTTOM) / 2
        self.parts.append(
            f'<text transform="translate(18 {middle:.0f}) rotate(-90)" text-anchor="middle" fill="#222">{up}</text>'
        )

    def curve(self, points: list[tuple[float, float]], colour: str) -> None:
        """Add a curve through points in units of the axes."""
        places = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in points)
        self.parts.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2.5"/>')

    def svg(self) -> str:
        """Return the picture."""
        return "\n".join([*self.parts, "</svg>", ""])


def score_picture() -> str:
    """Draw the score over the log-odds of the gate, for several mean gains."""
    axes = Axes("The default score: the gate decides the sign, the profile the rank", (-4, 6), (-4, 6))
    zero = axes.x(0)
    axes.parts.append(
        f'<rect x="{LEFT}" y="{TOP}" width="{zero - LEFT:.1f}" height="{HEIGHT - TOP - BOTTOM}" fill="#f3f3f3"/>'
    )
    axes.ticks({float(z): str(z) for z in range(-4, 7, 2)}, [-4.0, -2.0, 0.0, 2.0, 4.0, 6.0], 0)
    axes.line(zero, TOP, zero, HEIGHT - BOTTOM, "#888", ' stroke-dasharray="4 3"')
    axes.text((LEFT + zero) / 2, TOP + 16, "more likely not one text")
    axes.text((zero + WIDTH - RIGHT) / 2 - 40, TOP + 16, "more likely one text")
    axes.curve([(-4, -4), (0, 0)], "#555")
    for gain, colour in zip((0.05, 0.02, 0.0, -0.02), COLOURS, strict=True):
        axes.curve([(z / 20, score(z / 20, gain)) for z in range(121)], colour)
        axes.text(axes.x(6) + 8, axes.y(score(6, gain)) + 4, f"{gain:+.2f} nats per token", "start", colour)
    axes.text(axes.x(6) + 8, TOP + 4, "mean gain of far context", "start", "#222", ' font-style="italic"')
    axes.names("gate: log-odds that it is one text in its order, nats", "score")
    return axes.svg()


def octave_picture() -> str:
    """Draw a document as a bar with the octaves of distance before the word that is read."""
    axes = Axes("Octaves of distance before a word", (0, 1), (0, 1), height=200)
    reader, earlier = 690, 400
    edges = [reader, 460, 330, 190, 30]
    names = ("nearer than 1k", "1k to 2k", "2k to 4k", "4k to 8k tokens back ...")
    fills = ("#f3f3f3", "#cfe3f1", "#9fc8e4", "#6faed6")
    for name, fill, (right, left) in zip(names, fills, itertools.pairwise(edges), strict=True):
        axes.parts.append(
            f'<rect x="{left}" y="50" width="{right - left}" height="40" fill="{fill}" stroke="white"/>'
        )
        axes.text((left + right) / 2, 40, name)
    axes.text(reader, 18, "the word that is read", "end", COLOURS[2])
    for place in (reader - 8, earlier):
        axes.parts.append(f'<circle cx="{place}" cy="70" r="6" fill="{COLOURS[2]}"/>')
    axes.parts.append(
        f'<path d="M {earlier} 94 C {earlier + 40} 150, {reader - 48} 150, {reader - 8} 94" fill="none" '
        f'stroke="{COLOURS[2]}" stroke-width="2"/>'
    )
    axes.text(30, 108, "beginning of the document", "start", "#555")
    axes.text(
        690, 162, "the same word 1k to 2k tokens back, and nowhere nearer: counts in that octave,", "end"
    )
    axes.text(690, 182, "less what another text of the same kind would hold by chance", "end", "#555")
    return axes.svg()


def context_picture(measured: dict[str, list[list[float]]]) -> str:
    """Draw gain per doubling of context: for each model rows of (context, mean, low, high), nats per token."""
    top = max(row[3] for rows in measured.values() for row in rows)
    bottom = min(row[2] for rows in measured.values() for row in rows)
    step = 0.05
    low, high = math.floor(min(0.0, bottom) / step) * step, math.ceil(top / step) * step
    contexts = [row[0] for row in next(iter(measured.values()))]
    ends = (math.log2(contexts[0]) - 0.5, math.log2(contexts[-1]) + 0.5)
    axes = Axes("Loss that each doubling of the context saves", ends, (low, high))
    labels = {math.log2(context): f"{context:,.0f}" for context in contexts}
    axes.ticks(labels, [n * step for n in range(round(low / step), round(high / step) + 1)], 2)
    for (name, rows), colour in zip(measured.items(), COLOURS, strict=False):
        axes.curve([(math.log2(row[0]), row[1]) for row in rows], colour)
        for context, mean, least, most in rows:
            x = axes.x(math.log2(context))
            axes.line(x, axes.y(least), x, axes.y(most), colour)
            axes.parts.append(f'<circle cx="{x:.1f}" cy="{axes.y(mean):.1f}" r="3.5" fill="{colour}"/>')
        axes.text(axes.x(ends[1]) + 6, axes.y(rows[-1][1]) + 4, name, "start", colour)
    axes.names("context after the doubling, tokens", "gain, nats per token")
    return axes.svg()


def parallel_picture() -> str:
    """Draw four ranks with their pieces, and below them who sends what in each exchange."""
    axes = Axes("Who sends what: a sequence on four ranks", (0, 1), (0, 1), height=420)
    places, width = [230, 350, 470, 590], 120
    documents = ((230, 290, "#cfe3f1"), (290, 550, "#9fc8e4"), (550, 710, "#6faed6"))
    for left, right, fill in documents:
        axes.parts.append(f'<rect x="{left}" y="34" width="{right - left}" height="26" fill="{fill}"/>')
    for rank, place in enumerate(places):
        axes.parts.append(
            f'<rect x="{place}" y="34" width="{width}" height="26" fill="none" stroke="#222" stroke-width="1.5"/>'
        )
        axes.text(place + width / 2, 24, f"rank {rank}")
    axes.text(20, 51, "three documents, four pieces", "start")
    middles = [place + width / 2 for place in places]
    rows: tuple[tuple[str, str, list[tuple[int, int]]], ...] = (
        ("halo", "last W - 1 inputs of a convolution", [(0, 1), (1, 2), (2, 3)]),
        ("fold", "map (M, H) of every piece, to all", []),
        ("gather", "keys and values that are visible", [(0, 1), (0, 2), (1, 2), (2, 3)]),
        ("ring", "the same in blocks, hop by hop", [(0, 1), (1, 2), (2, 3)]),
        ("ulysses", "shares of heads, all with all", []),
    )
    for number, ((name, words, arrows), colour) in enumerate(zip(rows, (*COLOURS, "#222"), strict=True)):
        y = 104 + 66 * number
        axes.text(20, y - 4, name, "start", colour, ' font-weight="bold"')
        axes.text(20, y + 13, words, "start", "#555", ' font-size="12"')
        for middle in middles:
            axes.parts.append(f'<circle cx="{middle:.0f}" cy="{y}" r="5" fill="{colour}"/>')
        for start, stop in arrows:
            _arrow(axes, middles[start], middles[stop], y, colour)
        if not arrows:
            axes.line(middles[0], y, middles[-1], y, colour, ' stroke-width="3"')
    return axes.svg()


def _arrow(axes: Axes, start: float, stop: float, y: float, colour: str) -> None:
    """Draw an arc from one rank to a later one."""
    left, right, top = start + 8, stop - 8, y - 18 - (stop - start) / 16
    axes.parts.append(
        f'<path d="M {left:.0f} {y - 3} Q {(left + right) / 2:.0f} {top:.0f} {right:.0f} {y - 3}" fill="none" '
        f'stroke="{colour}" stroke-width="1.5"/>'
    )
    axes.parts.append(f'<path d="M {right:.0f} {y - 3} l -6 -5 l -2 4 z" fill="{colour}"/>')


def pictures() -> dict[str, str]:
    """Return every picture by file name."""
    measured = json.loads((FOLDER / "context_curve.json").read_text(encoding="utf-8"))
    return {
        "score.svg": score_picture(),
        "octaves.svg": octave_picture(),
        "parallel.svg": parallel_picture(),
        "context_curve.svg": context_picture(measured["models"]),
    }


if __name__ == "__main__":
    for file, text in pictures().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
        print(f"written to {FOLDER / file}")
