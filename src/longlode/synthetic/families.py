"""Families of text that is not one coherent document, made from works of any language.

Each maker takes a `Draw` (works of one domain and language, a length, a generator) and returns a text, or None if
the works do not allow it. `FAMILIES` holds them by name, in groups of those that destroy the same property.
"""

import base64
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from longlode.core.defaults import BYTES_PER_TOKEN
from longlode.synthetic import controls, generated
from longlode.synthetic.disorder import (
    drifting,
    lines_shuffled,
    markov,
    names_changed,
    permuted,
    unigram,
)


class Work(Protocol):
    """A document that texts are made from. Ids of works by one author or project share a prefix."""

    @property
    def id(self) -> str:
        """Name of the work."""
        ...

    @property
    def text(self) -> str:
        """The whole text."""
        ...


@dataclass(frozen=True, eq=False)
class Draw:
    """Source material of one text of a family.

    works: documents of one domain and language. length: tokens of the result. rng: source of randomness. strangers:
    works of other languages or domains. lists: works that are lists by nature. used: ids of the works that stretches
    were taken from.
    """

    works: Sequence[Work]
    length: int
    rng: random.Random
    strangers: Sequence[Work]
    lists: Sequence[Work]
    used: list[str] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        """Target size of the result in bytes."""
        return self.length * BYTES_PER_TOKEN

    def stretch(self, work: Work, share: float = 1.0) -> str | None:
        """Draw a stretch of `share` of the length from a work, beginning at a random line."""
        self.used.append(work.id)
        return stretch(work.text, int(self.length * share), self.rng)

    def several(self, number: int) -> list[Work] | None:
        """Draw `number` different works; None if there are fewer."""
        long = [work for work in self.works if len(work.text.encode()) >= 1.6 * self.num_bytes / number]
        return self.rng.sample(long, number) if len(long) >= number else None


Maker = Callable[[Draw], str | None]


def cut_tokens(text: str, num_tokens: int) -> str | None:
    """Return the first `num_tokens` tokens of a text, ended at a space if one is near; None if it is too short."""
    wanted = num_tokens * BYTES_PER_TOKEN
    data = text[:wanted].encode()
    if len(data) < wanted:
        return None
    cut = data[:wanted].decode(errors="ignore")
    space = max(cut.rfind(" "), cut.rfind("\n"))
    return cut[:space] if space > len(cut) - 80 else cut


def stretch(text: str, length: int, rng: random.Random) -> str | None:
    """Return `length` tokens from the beginning of a random line; None if the text is shorter."""
    room = round(len(text) * (1 - length * BYTES_PER_TOKEN / max(1, len(text.encode()))))
    for _ in range(4):
        start = rng.randrange(max(1, room))
        line = text.find("\n", start, start + 3000)
        found = cut_tokens(text[line + 1 if line >= 0 and start else start :], length)
        if found is not None:
            return found
        room //= 3
    return cut_tokens(text, length)


def _pieces(text: str, size: int) -> list[str]:
    """Cut a text into pieces of about `size` bytes, at white space where there is any."""
    width = max(1, round(size * len(text) / max(1, len(text.encode()))))
    found, at = [], 0
    while at < len(text):
        end = min(len(text), at + width)
        space = re.search(r"\s", text[end : end + 60])
        end += space.end() if space and end < len(text) else 0
        found.append(text[at:end])
        at = end
    return found


def _random_piece(work: Work, size: int, rng: random.Random) -> str:
    width = round(size * len(work.text) / len(work.text.encode()))
    start = rng.randrange(max(1, len(work.text) - width))
    piece = work.text[start : start + width + 40]
    first = re.search(r"\s", piece[:60])
    piece = piece[first.end() if first else 0 :]
    last = re.search(r"\s\S*\Z", piece[-60:])
    return piece[: len(piece) - 60 + last.start()] if last and len(piece) > 60 else piece


def splice(size: int) -> Maker:
    """Make a maker that joins pieces of about `size` bytes, neighbours from different works."""

    def make(draw: Draw) -> str | None:
        works = [work for work in draw.works if len(work.text) > 2 * size // 3]
        if len(works) < 2:
            return None
        parts: list[str] = []
        total, last = 0, None
        while total < draw.num_bytes * 1.1:
            work = draw.rng.choice([each for each in works if each is not last])
            parts.append(_random_piece(work, int(size * draw.rng.uniform(0.7, 1.3)), draw.rng))
            total, last = total + len(parts[-1].encode()) + 1, work
        return "\n".join(parts)

    return make


def _sentences(draw: Draw) -> str | None:
    """Join single sentences of many works."""
    pool = []
    for work in draw.works:
        pool += re.findall(r"[^.!?。！？\n]{20,300}[.!?。！？]", work.text[:400_000])
    draw.rng.shuffle(pool)
    text = " ".join(pool)
    return text if len(pool) > 50 and len(draw.works) > 1 else None


def halves(draw: Draw) -> str | None:
    """Join the first half of one work and a half of another."""
    works = draw.several(2)
    parts = [draw.stretch(work, 0.5) for work in works or ()]
    return "\n\n".join(parts) + "\n\n" + (parts[1] or "")[:400] if parts and all(parts) else None  # type: ignore[arg-type]


def inserted(draw: Draw) -> str | None:
    """Replace the middle third of one work by a part of another."""
    works = draw.several(2)
    if works is None:
        return None
    own, other = draw.stretch(works[0], 0.7), draw.stretch(works[1], 0.33)
    if own is None or other is None:
        return None
    half = len(own) // 2
    return own[:half] + "\n\n" + other + "\n\n" + own[half:]


def glued(number: int) -> Maker:
    """Make a maker that joins `number` equal stretches, neighbours from different works."""

    def make(draw: Draw) -> str | None:
        works = draw.several(min(number, max(2, len(draw.works))))
        chosen = [works[place % len(works)] for place in range(number)] if works else []
        parts = [draw.stretch(work, 1.03 / number) for work in chosen]
        return "\n\n".join(parts) if parts and all(parts) else None  # type: ignore[arg-type]

    return make


def interleaved(size: int | None, number: int = 2) -> Maker:
    """Make a maker that alternates `number` works, in pieces of `size` bytes or paragraph by paragraph (None)."""

    def make(draw: Draw) -> str | None:
        works = draw.several(number)
        texts = [draw.stretch(work, 1.5 / number) for work in works or ()]
        if not texts or not all(texts):
            return None
        cut = [controls.blocks(t or "") if size is None else _pieces(t or "", size) for t in texts]
        if min(map(len, cut)) < 4:
            return None
        return "\n\n".join(part for group in zip(*cut, strict=False) for part in group)

    return make


def _own(change: Callable[[str, Draw], str | None]) -> Maker:
    """Make a maker that changes a stretch of one work."""

    def make(draw: Draw) -> str | None:
        work = draw.rng.choice(list(draw.works))
        text = draw.stretch(work)
        return None if text is None else change(text, draw)

    return make


def _blocks_of(text: str, draw: Draw, change: Callable[[list[str]], None]) -> str | None:
    parts = controls.blocks(text)
    if len(parts) < 12:
        return None
    change(parts)
    return "\n\n".join(parts)


def _reverse_sentences(text: str, draw: Draw) -> str | None:
    parts = re.split(r"(?<=[.!?。！？])\s*", text)
    return " ".join(reversed(parts)) if len(parts) > 40 else None


def _own_pieces(draw: Draw) -> str | None:
    """Join pieces from all over one work in random order."""
    work = draw.rng.choice(list(draw.works))
    if len(work.text.encode()) < 1.2 * draw.num_bytes:
        return None
    draw.used.append(work.id)
    pieces = _pieces(work.text, 3000)
    draw.rng.shuffle(pieces)
    return "\n\n".join(pieces)


def _looped(text: str, draw: Draw) -> str:
    """Repeat the first 2,000 bytes."""
    part = _pieces(text, 2000)[0]
    return (part + "\n") * (draw.num_bytes // max(1, len(part.encode())) + 1)


def _repeated(text: str, draw: Draw) -> str:
    return controls.repeated(text[:20_000], num_chars=2 * draw.num_bytes, rng=draw.rng)


def _pages(draw: Draw) -> str | None:
    """Join short, unrelated passages of one project or author under the same boilerplate line."""
    prefix = draw.rng.choice(list(draw.works)).id.split("_")[0].rsplit("/", 1)[0]
    same = [work for work in draw.works if work.id.startswith(prefix)]
    parts: list[str] = []
    total = 0
    while total < draw.num_bytes * 1.05:
        parts.append(_random_piece(draw.rng.choice(same), draw.rng.randint(1500, 4000), draw.rng))
        total += len(parts[-1].encode())
    return "\n\n".join(parts)


def _site(draw: Draw) -> str | None:
    snippets = [_random_piece(w, 1500, draw.rng) for w in draw.rng.choices(list(draw.works), k=40)]
    return generated.boilerplate_pages(snippets, num_chars=2 * draw.num_bytes, rng=draw.rng)


def _chat(draw: Draw) -> str | None:
    talks = [found for work in draw.works if len(found := controls.turns(work.text)) > 60]
    if not talks:
        return None
    chosen = draw.rng.sample(talks, min(4, len(talks)))
    return controls.mixed_turns(chosen, num_chars=2 * draw.num_bytes, rng=draw.rng)


def _list(draw: Draw) -> str | None:
    long = [work for work in draw.lists if len(work.text.encode()) > draw.num_bytes]
    return draw.stretch(draw.rng.choice(long)) if long else None


def _two_languages(draw: Draw) -> str | None:
    """Alternate paragraphs with those of a work of another domain or language."""
    long = [w for w in draw.strangers if len(w.text.encode()) > draw.num_bytes]
    if not long or not (own := draw.several(1)):
        return None
    texts = [draw.stretch(own[0], 0.75), draw.stretch(draw.rng.choice(long), 0.75)]
    cut = [controls.blocks(text or "") for text in texts]
    return (
        "\n\n".join(part for pair in zip(*cut, strict=False) for part in pair)
        if min(map(len, cut)) > 3
        else None
    )


def _index(draw: Draw) -> str | None:
    """List the vocabulary of a work in alphabetical order, with page numbers."""
    words = sorted(set(re.findall(r"\w{3,}", draw.rng.choice(list(draw.works)).text)) or {"none"})
    rng = draw.rng
    lines = [
        f"{w}, {', '.join(map(str, sorted(rng.sample(range(1, 400), rng.randint(1, 4)))))}" for w in words
    ]
    text = "\n".join(lines)
    if len(text) < draw.num_bytes // 2:
        return None
    start = rng.randrange(len(text))
    return (text[start:] + "\n" + text[:start]) * 2


_HEADERS = (
    "id",
    "name",
    "price",
    "amount",
    "date",
    "country",
    "score",
    "status",
    "group",
    "total",
    "email",
    "city",
    "rate",
    "flag",
    "kind",
)


def _csv(draw: Draw) -> str:
    rng = draw.rng
    pool = re.findall(r"\w{4,}", draw.rng.choice(list(draw.works)).text[:60_000]) or ["none"]
    columns = rng.sample(_HEADERS, rng.randint(4, 9))
    labels = rng.sample(pool, min(len(pool), 12))
    kinds = [rng.randrange(5) for _ in columns]

    def cell(kind: int) -> str:
        if kind == 0:
            return str(rng.randrange(100_000))
        if kind == 1:
            return f"{rng.uniform(0, 1000):.2f}"
        if kind == 2:
            return rng.choice(labels)
        if kind == 3:
            return f"{rng.choice(pool)} {rng.choice(pool)}"
        return f"20{rng.randrange(10, 26)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"

    rows = [",".join(columns)]
    rows += [",".join(map(cell, kinds)) for _ in range(draw.num_bytes // (6 * len(columns)) + 10)]
    return "\n".join(rows)


def _json_records(draw: Draw) -> str:
    rng = draw.rng
    pool = re.findall(r"\w{4,}", draw.rng.choice(list(draw.works)).text[:60_000]) or ["none"]
    keys = rng.sample(_HEADERS, 5)
    rows = []
    for number in range(draw.num_bytes // 60):
        values = [str(rng.randrange(10**6)), *(f'"{rng.choice(pool)} {rng.choice(pool)}"' for _ in keys[1:])]
        rows.append(
            f'{{"n": {number}, ' + ", ".join(f'"{k}": {v}' for k, v in zip(keys, values, strict=True)) + "}"
        )
    return "\n".join(rows)


def _literals(draw: Draw) -> str:
    """Values dumped as code: settings, records, constants or codes, whose words and phrases return."""
    rng = draw.rng
    pool = re.findall(r"[A-Za-z]{3,}", rng.choice(list(draw.works)).text[:60_000]) or ["none"]
    words = rng.sample(pool, min(len(pool), 300))
    phrases = [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(60)]
    phrases += ["-" + "/".join(rng.choices(words, k=3)) for _ in range(20)]
    kind, quote = rng.randrange(4), rng.choice("'\"")

    def value() -> str:
        choice = rng.random()
        if choice < 0.3:
            return str(rng.choice((0, 1, rng.randrange(10**5))))
        if choice < 0.4:
            return rng.choice(("None", "True", "False"))
        # Long values go on in further lines.
        joint = rng.choice((" ", f"{quote}\n{' ' * 9}{quote}"))
        return quote + joint.join(rng.choices(phrases, k=rng.choice((1, 1, 1, 2, 4)))) + quote

    rows: list[str] = []
    total = 0
    while total < draw.num_bytes * 1.05:
        key = "_".join(rng.choices(words, k=rng.randint(1, 3)))
        if kind == 0:
            row = f" {quote}{key.upper()}{quote}: {value()},"
        elif kind == 1:
            row = f"    ({quote}{key.lower()}{quote}, " + ", ".join(value() for _ in range(3)) + "),"
        elif kind == 2:
            row = f"{key.upper()} = {value()}"
        else:
            row = f"    0x{len(rows):04x}: 0x{rng.randrange(65536):04x},  # {rng.choice(phrases)}"
        rows.append(row)
        total += len(row.encode()) + 1
    return "\n".join(rows)


def _base64(draw: Draw) -> str:
    raw = base64.b64encode(draw.rng.randbytes(draw.num_bytes)).decode()
    return "\n".join(raw[i : i + 76] for i in range(0, len(raw), 76))


def _hex(draw: Draw) -> str:
    lines = []
    for address in range(0, draw.num_bytes // 3, 16):
        lines.append(f"{address:08x}  " + " ".join(f"{draw.rng.randrange(256):02x}" for _ in range(16)))
    return "\n".join(lines)


def _template(draw: Draw) -> str | None:
    """Repeat one paragraph of a work as a form whose longer words are replaced each time."""
    work = draw.rng.choice(list(draw.works))
    pool = re.findall(r"\w{5,}", work.text[:200_000])
    parts = [part for part in controls.blocks(work.text[:60_000]) if 150 < len(part) < 1500]
    if len(pool) < 200 or not parts:
        return None
    form = draw.rng.choice(parts)
    long = sorted(set(re.findall(r"\w{5,}", form))) or ["none"]
    slots = set(draw.rng.sample(long, min(6, len(long))))
    made: list[str] = []
    total = 0
    while total < draw.num_bytes * 1.05:
        made.append(
            re.sub(r"\w{5,}", lambda m: draw.rng.choice(pool) if m.group() in slots else m.group(), form)
        )
        total += len(made[-1].encode()) + 1
    return "\n\n".join(made)


def _links(draw: Draw) -> str:
    rng = draw.rng
    pool = re.findall(r"[a-z]{4,}", draw.rng.choice(list(draw.works)).text[:100_000]) or ["page"]
    hosts = [f"www.{rng.choice(pool)}.com" for _ in range(4)]
    rows = [
        f"https://{rng.choice(hosts)}/{rng.choice(pool)}/{rng.choice(pool)}-{rng.choice(pool)}-{rng.randrange(9999)}"
        for _ in range(draw.num_bytes // 30)
    ]
    return "\n".join(rows)


FAMILIES: dict[str, dict[str, Maker]] = {
    "spliced": {
        "splice-500": splice(500),
        "splice-1500": splice(1500),
        "splice-4000": splice(4000),
        "splice-sentences": _sentences,
    },
    "glued": {
        "two-halves": halves,
        "inserted": inserted,
        "glued-4": glued(4),
        "glued-8": glued(8),
        "pages-of-one-project": _pages,
    },
    "interleaved": {
        "interleaved-paragraphs": interleaved(None),
        "interleaved-1500": interleaved(1500),
        "interleaved-400": interleaved(400),
        "three-interleaved-3000": interleaved(3000, 3),
        "two-languages": _two_languages,
    },
    "shuffled": {
        "paragraphs-shuffled": _own(lambda t, d: _blocks_of(t, d, d.rng.shuffle)),
        "own-pieces": _own_pieces,
        "lines-shuffled": _own(lines_shuffled),
        "chat": _chat,
    },
    "reversed": {
        "paragraphs-reversed": _own(lambda t, d: _blocks_of(t, d, list.reverse)),
        "sentences-reversed": _own(_reverse_sentences),
    },
    "salad": {
        "permuted-20": _own(permuted(20)),
        "permuted-200": _own(permuted(200)),
        "permuted": _own(permuted(None)),
        "markov": _own(markov),
        "unigram": unigram,
    },
    "names": {"renamed": _own(names_changed), "drifting": _own(drifting)},
    "repeated": {"repeated": _own(_repeated), "looped": _own(_looped), "template": _template, "site": _site},
    "lists": {"lists": _list, "index": _index, "links": _links},
    "machine": {
        "log": lambda d: generated.synthetic_log(num_chars=2 * d.num_bytes, rng=d.rng),
        "table": lambda d: generated.synthetic_table(num_chars=2 * d.num_bytes, rng=d.rng),
        "csv": _csv,
        "json": _json_records,
        "literals": _literals,
        "base64": _base64,
        "hex": _hex,
    },
}
"""Makers by group and name."""
FROM_ONE = frozenset({"machine", "lists", "repeated"})
"""Groups that depend little on language or domain; fewer texts of them are made per domain."""
