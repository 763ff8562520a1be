"""Text disordered by words or lines: permuted, drawn from tables, names changed.

Each function takes a `families.Draw`, after the text to change if it changes one.
"""

import itertools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from longlode.synthetic import controls

if TYPE_CHECKING:
    from longlode.synthetic.families import Draw


def permuted(width: int | None) -> "Callable[[str, Draw], str]":
    """Put words in random order within every `width` words (in the whole text if None); white space stays in place."""

    def change(text: str, draw: "Draw") -> str:
        parts = _words_and_gaps(text)
        words = parts[::2]
        size = width or len(words)
        for start in range(0, len(words), size):
            part = words[start : start + size]
            draw.rng.shuffle(part)
            words[start : start + size] = part
        parts[::2] = words
        return "".join(parts)

    return change


def _words_and_gaps(text: str) -> list[str]:
    """Split into words and the white space between them, alternating; into characters in scripts without spaces."""
    if " " in text[:2000]:
        return re.split(r"(\s+)", text)
    return [part for character in text for part in (character, "")]


def lines_shuffled(text: str, draw: "Draw") -> str | None:
    """Put lines, or sentences where there are few lines, in random order."""
    lines = text.split("\n")
    if len(lines) < 40:
        lines = re.split(r"(?<=[.!?。！？])\s*", text)
    draw.rng.shuffle(lines)
    return "\n".join(lines) if len(lines) >= 40 else None


def names_changed(text: str, draw: "Draw") -> str | None:
    """Replace names by new ones that change along the text; None for a text with few names."""
    changed = controls.renamed(text, rng=draw.rng)
    before, after = text.split(), changed.split()
    return changed if len(before) > 1000 and sum(map(str.__ne__, before, after)) * 120 > len(before) else None


def drifting(text: str, draw: "Draw") -> str | None:
    """Replace each rare word by another rare word of the text, by a new mapping in every sixteenth of it."""
    words = re.findall(r"\w+|\W+", text)
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    rare = sorted(w for w, n in counts.items() if w.isalpha() and 2 <= n <= max(3, len(words) // 1000))
    if len(rare) < 60 or " " not in text[:2000]:
        return None
    size = len(words) // 16 + 1
    for start in range(0, len(words), size):
        new = rare[:]
        draw.rng.shuffle(new)
        table = dict(zip(rare, new, strict=True))
        words[start : start + size] = [table.get(word, word) for word in words[start : start + size]]
    return "".join(words)


def markov(text: str, draw: "Draw") -> str | None:
    """Draw words from a bigram Markov chain of the text, its white space kept: fluent for two words."""
    parts = _words_and_gaps(text)
    words = parts[::2]
    follow: dict[str, list[str]] = {}
    for first, second in itertools.pairwise(words):
        follow.setdefault(first, []).append(second)
    for place in range(1, len(words)):
        words[place] = draw.rng.choice(follow.get(words[place - 1], words))
    parts[::2] = words
    return "".join(parts)


def unigram(draw: "Draw") -> str:
    """Draw words of all works by their frequency."""
    pool: list[str] = []
    for work in draw.works:
        part = work.text[:200_000]
        pool += part.split() if " " in part[:2000] else list(part)
    joint = " " if " " in draw.works[0].text[:2000] else ""
    return joint.join(draw.rng.choices(pool, k=draw.num_bytes // 2))
