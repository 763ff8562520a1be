"""Junk of ten kinds for the mixed pool of `benchmarks.claims.mining`.

Each row of junk stands in the place of a row of some work, counts as that work's, and is made from it or from its work.

spliced      pieces of 150 tokens of works of one group (books; other prose; code), dealt out
interleaved  two such works by turns, 300 tokens each
shuffled     the row's own paragraphs in random order
reversed     the row's own paragraphs, last first
repeated     a paragraph of the work again and again: with a few words changed, as a form, or as it is
table        vocabulary of the work as an index, a table, records or literals
machine      a log, base64 or a dump of bytes: of no work
columns      two passages of the work side by side, read across as a bad extraction of a page does
thread       a thread of posts: each quotes the one before, and what that one quoted
cipher       the words of the row, each replaced by another one: the same everywhere, and about as frequent

The gate's fit holds the first seven (`FITTED`) in these or other sizes, made of other works; it holds none like the
last three. The first four, with their place, hold every token of their rows once; the others do not.
"""

import random
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from benchmarks.works import Work
from longlode.core.errors import ConfigError
from longlode.corpus import Tokenizer
from longlode.synthetic import controls
from longlode.synthetic.families import FAMILIES, Draw, Maker

FITTED = ("spliced", "interleaved", "shuffled", "reversed", "repeated", "table", "machine")
UNFITTED = ("columns", "thread", "cipher")
KINDS = (*FITTED, *UNFITTED)
PIECE = 150
"""Tokens of a spliced piece, some 500 characters."""
_TURN = 300
_MOST_CHARS = 16
_SHORTEST_BLOCK = 60
_FEWEST_BLOCKS = 8
_MAKERS: dict[str, tuple[Maker, ...]] = {
    "repeated": tuple(FAMILIES["repeated"][name] for name in ("repeated", "looped", "template")),
    "table": (
        FAMILIES["lists"]["index"],
        *(FAMILIES["machine"][name] for name in ("csv", "json", "literals")),
    ),
    "machine": tuple(FAMILIES["machine"][name] for name in ("log", "base64", "hex")),
}
_CODE = ("code", "module", "package")
_NAMES = ("Ada", "Berta", "Carl", "Dora", "Emil", "Frida", "Georg", "Hanna")


@dataclass(frozen=True, eq=False)
class Slot:
    """The place of a row of junk. row: tokens that stand there; text: theirs and what follows in the work."""

    row: np.ndarray
    text: str
    work: Work


def make_junk(
    slots: Sequence[Slot], tokenizer: Tokenizer, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[str]]:
    """A row of junk per slot, and its kind; kinds are dealt in turns, so that each has as many rows."""
    order = rng.permutation(len(KINDS))
    kinds = [KINDS[order[place % len(KINDS)]] for place in range(len(slots))]
    found: list[np.ndarray | None] = [None] * len(slots)
    for group in dict.fromkeys(_group(slot.work) for slot in slots):
        for kind, change in (("spliced", dealt_anew), ("interleaved", _woven)):
            own = [n for n, slot in enumerate(slots) if _group(slot.work) == group and kinds[n] == kind]
            rows = change([slots[n].row for n in own], rng)
            for number, row in zip(own, rows, strict=True):
                found[number] = row
    ends_line = np.array([tokenizer.decode([token]).endswith("\n") for token in range(tokenizer.vocab_size)])
    for number, (slot, kind) in enumerate(zip(slots, kinds, strict=True)):
        if kind in ("shuffled", "reversed"):
            found[number] = _in_other_order(slot.row, ends_line, kind, rng)
        elif found[number] is None:
            found[number] = _written(slot, kind, tokenizer, random.Random(int(rng.integers(1 << 62))))
    return [row for row in found if row is not None], kinds


def _group(work: Work) -> str:
    return "code" if work.domain in _CODE else "book" if work.domain == "book" else "other"


def dealt_anew(rows: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """As many rows, of the same pieces of PIECE tokens, each in a place of its own length."""
    if not rows:
        return []
    cuts = [np.split(row, np.arange(PIECE, len(row), PIECE)) for row in rows]
    pieces = [piece for cut in cuts for piece in cut[:-1]]
    ends = [cuts[number][-1] for number in rng.permutation(len(cuts))]
    deal = rng.permutation(len(pieces)).reshape(len(rows), -1)
    return [
        np.concatenate([*(pieces[number] for number in own), end])
        for own, end in zip(deal, ends, strict=True)
    ]


def _woven(rows: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Rows by twos, by turns, cut into two rows again; a last one alone, its halves by turns."""
    # Rows come in the order of their works: one of the first half meets one of the second.
    half = len(rows) // 2
    made: list[np.ndarray] = []
    for first, second in zip(rows[:half], rows[half : 2 * half], strict=True):
        whole = np.concatenate(
            [part for turn in zip(_turns(first), _turns(second), strict=True) for part in turn]
        )
        made += [whole[: len(first)], whole[len(first) :]]
    if len(rows) % 2:
        halves = (_turns(part) for part in np.array_split(rows[-1], 2))
        made.append(
            np.concatenate([part for turn in zip_longest(*halves) for part in turn if part is not None])
        )
    return [made[number] for number in rng.permutation(len(made))]


def _turns(row: np.ndarray) -> list[np.ndarray]:
    """Pieces of `_TURN` tokens; of a short row four or more."""
    return np.split(row, np.arange(size := min(_TURN, len(row) // 4), len(row), size))


def _in_other_order(
    row: np.ndarray, ends_line: np.ndarray, kind: str, rng: np.random.Generator
) -> np.ndarray:
    """The row's blocks shuffled or reversed: blocks end at blank lines, in text with few of them at any line's end."""
    ends = ends_line[row]
    blank = ends & np.append(ends[1:], False)
    blocks = _blocks(row, np.flatnonzero(blank) + 2)
    if len(blocks) < _FEWEST_BLOCKS:
        blocks = _blocks(row, np.flatnonzero(ends) + 1)
    if len(blocks) < _FEWEST_BLOCKS:
        blocks = np.split(row, np.arange(PIECE, len(row), PIECE))
    order = rng.permutation(len(blocks)) if kind == "shuffled" else np.arange(len(blocks))[::-1]
    return np.concatenate([blocks[number] for number in order])


def _blocks(row: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """Cut after these places; a block shorter than `_SHORTEST_BLOCK` goes on to the next cut."""
    cuts = [0]
    for end in ends:
        if end - cuts[-1] >= _SHORTEST_BLOCK and end < len(row):
            cuts.append(int(end))
    return np.split(row, cuts[1:])


def _written(slot: Slot, kind: str, tokenizer: Tokenizer, rng: random.Random) -> np.ndarray:
    """A row of the kinds that are made as text, cut to the length of the slot's."""
    width = len(slot.row)
    tried: Sequence[Callable[[], str | None]]
    if kind in _MAKERS:
        draw = Draw([slot.work], 2 * width, rng, [], [])
        makers = rng.sample(_MAKERS[kind], len(_MAKERS[kind]))
        tried = [lambda make=make: make(draw) for make in makers]  # type: ignore[misc]
    else:
        tried = [lambda: _TEXTS[kind](slot.text, rng)]
    for attempt in tried:
        ids = tokenizer.encode_long((attempt() or "")[: _MOST_CHARS * width])
        if len(ids) >= width:
            return np.asarray(ids[:width])
    raise ConfigError(f"{slot.work.id}: its junk ({kind}) has fewer than the {width:,} tokens of a row.")


def columns(text: str, rng: random.Random) -> str:
    """The two halves of a text side by side, read line by line across both."""
    width = rng.randint(36, 46)
    parts = text.split("\n") if controls.looks_like_code(text) else controls.blocks(text)
    lines = [
        line
        for part in parts
        for line in textwrap.wrap(part, width, drop_whitespace=False, replace_whitespace=True) or [""]
    ]
    half = len(lines) // 2
    pairs = zip(lines[:half], lines[half : 2 * half], strict=True)
    return "\n".join(f"{left.rstrip():<{width + 3}}{right.rstrip()}" for left, right in pairs)


def thread(text: str, rng: random.Random) -> str:
    """Posts of some 500 characters; each begins with the one before it, and what that one quoted, behind `> `."""
    blocks: list[str] = []
    for block in controls.blocks(text):
        if blocks and len(blocks[-1]) < 500:
            blocks[-1] += "\n" + block
        else:
            blocks.append(block)
    posts = blocks[:1]
    for number in range(1, len(blocks)):
        head = f"On {1 + number % 28}/{rng.randint(1, 12)} {rng.choice(_NAMES)} wrote:"
        quoted = [
            f"> > {line}" for older in blocks[max(0, number - 2) : number - 1] for line in older.split("\n")
        ]
        quoted += [f"> {line}" for line in blocks[number - 1].split("\n")]
        posts.append("\n".join((head, *quoted, "", blocks[number], "")))
    return "\n".join(posts)


def cipher(text: str, rng: random.Random) -> str:
    """Every word replaced by another word of the text, of about its frequency, by one table; capitals stay."""
    words = re.findall(r"[^\W\d_]{2,}", text)
    ranked = [word for word, _ in Counter(word.lower() for word in words).most_common()]
    table: dict[str, str] = {}
    for start in range(0, len(ranked), 40):
        part = ranked[start : start + 40]
        # Turned by one, a shuffled list maps no word to itself.
        shuffled = rng.sample(part, len(part))
        table |= dict(zip(shuffled, shuffled[1:] + shuffled[:1], strict=True))

    def other(found: re.Match[str]) -> str:
        word = found.group()
        new = table[word.lower()]
        return new.upper() if word.isupper() else new.capitalize() if word[0].isupper() else new

    return re.sub(r"[^\W\d_]{2,}", other, text)


_TEXTS: dict[str, Callable[[str, random.Random], str]] = {
    "columns": columns,
    "thread": thread,
    "cipher": cipher,
}
