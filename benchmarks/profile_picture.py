"""Draw the distance profile of four kinds of text: python -m benchmarks.profile_picture [--out docs/profile.svg]

Each line is the mean over works of the dev side, 32,768 tokens of each: novels and parts of code libraries as they are,
novels spliced of pieces of 4,000 bytes, and novels with their paragraphs shuffled. Bars are standard errors over works.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.works import Work, works_of
from longlode.corpus.words import shared_vocabulary
from longlode.mining.distance_profile import distance_profile
from longlode.mining.distance_profile.profile import tokens_per_word
from longlode.mining.distance_profile.tables import choose_control, packaged_tables
from longlode.synthetic.families import FAMILIES, Draw, cut_tokens, stretch

LENGTH = 32_768
MOST = 10
OUT = Path(__file__).parents[1] / "docs" / "profile.svg"
COLOURS = ("#0072b2", "#009e73", "#d55e00", "#cc79a7")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 340, 70, 20, 190, 50


def main() -> None:
    """Measure, draw, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, default=OUT)
    options = parser.parse_args()
    works = works_of("dev")
    novels = [work for work in works if work.domain == "book"]
    code = [work for work in works if work.domain in ("code", "package")]
    lines = {
        "novels": profiles(stretches(novels)),
        "code libraries": profiles(stretches(code)),
        "novels, paragraphs shuffled": profiles(made(novels, "shuffled", "paragraphs-shuffled")),
        "novels spliced": profiles(made(novels, "spliced", "splice-4000")),
    }
    for name, rows in lines.items():
        print(f"{name:30} {len(rows):3} texts  " + " ".join(f"{x:+.4f}" for x in rows.mean(axis=0)))
    options.out.write_text(drawing(lines), encoding="utf-8")
    print(f"written to {options.out}")


def stretches(works: Sequence[Work]) -> list[str]:
    """One stretch of each work that is long enough."""
    found = []
    for work in works:
        text = stretch(work.text, int(1.02 * LENGTH), random.Random(work.id))
        cut = None if text is None else cut_tokens(text, LENGTH)
        found += [cut] if cut is not None else []
    return found[:MOST]


def made(works: Sequence[Work], group: str, label: str) -> list[str]:
    """Texts of a family."""
    found = []
    for number in range(MOST):
        draw = Draw(works, int(1.12 * LENGTH), random.Random(f"{label}:{number}"), [], [])
        text = FAMILIES[group][label](draw)
        cut = None if text is None else cut_tokens(text, LENGTH)
        found += [cut] if cut is not None else []
    return found


def profiles(texts: Sequence[str]) -> np.ndarray:
    """Gains, nats per token, float64 `[texts, octaves]`."""
    rows = []
    for text in texts:
        kinds, words = shared_vocabulary().read(text)
        control = choose_control(kinds, words, packaged_tables())
        found = distance_profile(kinds, control, per_word=tokens_per_word(text, len(kinds)))
        rows.append([octave.gain_nats for octave in found.octaves])
    return np.array(rows)


def drawing(lines: dict[str, np.ndarray]) -> str:
    """The picture, SVG."""
    means = {name: rows.mean(axis=0) for name, rows in lines.items()}
    errors = {name: rows.std(axis=0, ddof=1) / np.sqrt(len(rows)) for name, rows in lines.items()}
    low = min(float((means[name] - errors[name]).min()) for name in lines)
    high = max(float((means[name] + errors[name]).max()) for name in lines)
    low, high = min(0.0, low) - 0.005, high + 0.005
    octaves = len(next(iter(means.values())))

    def x(place: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (place + 0.5) / octaves

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="13">',
        "<title>What context at each octave of distance adds, by kind of text</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    step = 0.05 if high - low > 0.2 else 0.02
    for tick in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step:
        colour = "#888" if abs(tick) < 1e-9 else "#e4e4e4"
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{colour}"/>'
            f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.2f}</text>'
        )
    for place in range(octaves):
        label = f"{1 << place}k-{2 << place}k"
        parts.append(
            f'<text x="{x(place):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label}</text>'
        )
    ends = np.argsort([-float(rows[-1]) for rows in means.values()])
    height = {int(k): y(float(list(means.values())[int(k)][-1])) for k in ends}
    above = -1e9
    for k in ends:  # names beside the ends of their lines, none over another
        height[int(k)] = above = max(height[int(k)], above + 17)
    for k, (name, values) in enumerate(means.items()):
        points = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in enumerate(values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[k]}" stroke-width="2.5"/>')
        for place, (value, error) in enumerate(zip(values, errors[name], strict=True)):
            parts.append(
                f'<line x1="{x(place):.1f}" x2="{x(place):.1f}" y1="{y(value - error):.1f}" '
                f'y2="{y(value + error):.1f}" stroke="{COLOURS[k]}"/>'
                f'<circle cx="{x(place):.1f}" cy="{y(value):.1f}" r="3.5" fill="{COLOURS[k]}"/>'
            )
        parts.append(
            f'<text x="{x(octaves - 1) + 14:.1f}" y="{height[k] + 4:.1f}" fill="{COLOURS[k]}">{name}</text>'
        )
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 10}" text-anchor="middle">tokens back</text>')
    parts.append(
        f'<text transform="translate(16 {(HEIGHT - BOTTOM) / 2 + TOP / 2:.0f}) rotate(-90)" text-anchor="middle">'
        "gain, nats per token</text>"
    )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
