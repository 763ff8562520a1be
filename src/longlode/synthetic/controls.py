"""Controls: documents without long-range dependency, which a score must separate from real ones.

Each function takes real text and a `random.Random` and destroys one property while it keeps the others:

    spliced            pieces of many texts, one after the other: local fluency, no dependency between pieces
    spliced_documents  whole short documents, one after the other: coherence that ends after one or two pages
    shuffled           one text's blocks in random order: the same words, no order
    renamed            every name replaced anew in every piece: local coherence, no entity carries over
    repeated           one block again and again with small edits: repetition, nothing to follow
    mixed_turns        turns of conversations in random order, speakers kept: a chat without a thread

Controls that need no input text (logs, tables, pages of a web site) are in `synthetic.generated`.
"""

import builtins
import itertools
import keyword
import random
import re
from collections.abc import Sequence

from longlode.core.errors import ConfigError

LONG_BLOCK = 2500
"""Characters; in text with fewer blank lines than one per so many, paragraphs are found in another way."""

_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}")
_WORD = re.compile(r"(?m)^[A-Z][\w.'-]*(?: [A-Z][\w.'-]*){0,3}(?=:)|(?<![\w\\])[A-Za-z_]\w{2,}")
_SPEAKER = re.compile(r"(?m)^([A-Z][\w.'-]*(?: [A-Z][\w.'-]*){0,3}):")
_DEFINED = re.compile(
    r"\b(?:def|class|import|as|self\.|cls\.)\s*(\w{3,})|\b(\w{3,})(?: *=[^=]| *: *[A-Z]|\()"
)
_CODE_LINE = re.compile(
    r"(?m)^\s*(?:def|class|async def|import|from \S+ import|return|#include|function|func|fn|public|private|static|"
    r"const|let|var|struct)\b"
)
_HEADING = re.compile(
    r"(?m)^(?="
    r"[ ]*(?:chapter|book|part|section)\b[^\n]{0,80}$"
    r"|[ ]*[IVXLC]+\.?[ ]*$"
    r"|# ==== file:"
    r"|\\ol(?:fileid|chapter|part)\b|\\(?:sub)?section\b|\\chapter\b"
    r"|[^\s][^\n]{2,78}\n[=~^\"'*-]{3,}[ ]*$"
    r"|#{1,3} [A-Z]"
    r")",
    re.IGNORECASE,
)
_ONSETS, _ENDINGS, _CODE_WORDS = (
    text.split()
    for text in (
        "Mar Ed Tho Wil Hel Bar Con Ros Fen Gar Hal Jo Ken Lor Mil Nor Os Pen Quin Ral Sel Tan Ul Ver Win",
        "den lin ton ric bert wyn ma sa nor vey dale ford wick cott ley ham mond son las trude ina ette",
        "load table row parse node count merge split value index cache field token frame order group state label "
        "batch queue event entry block chunk scope query store fetch match clear reset build check guard mark "
        "plan route scan slot stage step trace unit view wrap bind cast copy drop emit fill",
    )
)
_KEPT = frozenset(keyword.kwlist) | frozenset(dir(builtins)) | {"self", "cls", "args", "kwargs", "typing"}


def looks_like_code(text: str) -> bool:
    """Return True if at least one line in 50 begins like a line of code (def, import, return, #include ...)."""
    num_lines = text.count("\n") + 1
    return 50 * len(_CODE_LINE.findall(text)) >= num_lines > 1


def blocks(text: str) -> list[str]:
    """Split a text into paragraphs, in order, stripped of white space; none is empty.

    Code is cut before definitions of the two outer levels. Other text is cut at blank lines; if it has too few, at the
    short last lines of hard-wrapped paragraphs, or at every line (one paragraph or turn per line). A text in one line
    is cut after sentences, about every 550 characters.
    """
    if looks_like_code(text):
        parts = re.split(r"\n[ \t]*\n(?=(?: {4}|\t)?[\w@#])", text)
    else:
        parts = re.split(r"\n[ \t]*\n", text)
        if len(parts) * LONG_BLOCK < len(text):
            parts = _line_blocks(text)
        if len(parts) * LONG_BLOCK < len(text):
            parts = re.findall(r"(?s).{500,}?[.!?]['\"”]?\s|.+\Z", text)
    return [part.strip("\n").rstrip(" ") for part in parts if part.strip()]


def short_documents(text: str, *, rng: random.Random, least: int = 1800, most: int = 9000) -> list[str]:
    """Cut a text at its own boundaries into parts that can stand alone, `least` to `most` characters each.

    The cuts are first made at headings (files of a package, chapters, sections). Short neighbours stay together; longer
    parts are cut between blocks, at a length drawn for each. Parts that cannot be made to fit are left out.
    """
    places = [0, *(found.start() for found in _HEADING.finditer(text)), len(text)]
    sections = [text[start:stop] for start, stop in itertools.pairwise(places) if text[start:stop].strip()]
    separator = _separator(text)
    parts: list[str] = []
    held: list[str] = []
    for section in sections:
        pieces = [section] if len(section) <= most else blocks(section)
        wanted = rng.randint(least, most) if len(section) > most else least
        for piece in pieces:
            if sum(map(len, held)) + len(piece) > most:
                parts.append(separator.join(held))
                held = []
            held.append(piece.strip("\n"))
            if sum(map(len, held)) >= wanted:
                parts.append(separator.join(held))
                held = []
                wanted = rng.randint(least, most) if len(section) > most else least
        if held and sum(map(len, held)) >= least:
            parts.append(separator.join(held))
            held = []
    return [part for part in parts if least <= len(part) <= most + 200]


def spliced(texts: Sequence[str], *, num_chars: int, rng: random.Random, piece_chars: int = 500) -> str:
    """Join pieces of about `piece_chars` characters, neighbours always from different texts, to `num_chars`.

    Pieces begin and end at white space, so that no word is cut.
    Raises: ConfigError when fewer than two texts hold a whole piece.
    """
    usable = [text for text in texts if len(text) >= 2 * piece_chars]
    if len(usable) < 2:
        raise ConfigError(
            f"Splicing needs at least 2 texts of {2 * piece_chars} characters or more; got {len(usable)}."
        )
    pieces: list[str] = []
    total, last = 0, -1
    while total < num_chars:
        index = rng.randrange(len(usable) - 1)
        index += index >= last >= 0
        last = index
        piece = _piece(usable[index], piece_chars, rng)
        pieces.append(piece)
        total += len(piece) + 1
    return "\n".join(pieces)[:num_chars]


def spliced_documents(shelves: Sequence[Sequence[str]], *, num_chars: int, rng: random.Random) -> str:
    """Join whole documents, each used once, neighbours always from different shelves, until `num_chars` are there.

    Args: shelves, documents grouped by origin (an author, a package); neighbours never share a shelf.
      The last document is not cut; the result is shorter than `num_chars` if the shelves run out.
    Raises: ConfigError when fewer than two shelves hold a document.
    """
    left = [rng.sample(list(shelf), len(shelf)) for shelf in shelves if shelf]
    if len(left) < 2:
        raise ConfigError(f"Splicing documents needs at least 2 shelves that hold one; got {len(left)}.")
    chosen: list[str] = []
    total, last = 0, -1
    while total < num_chars:
        open_shelves = [n for n, shelf in enumerate(left) if shelf and n != last]
        if not open_shelves:
            break
        last = rng.choice(open_shelves)
        chosen.append(left[last].pop())
        total += len(chosen[-1]) + 2
    return "\n\n".join(chosen)


def shuffled(text: str, *, rng: random.Random) -> str:
    """Put the blocks of a text (`blocks`) in random order."""
    parts = blocks(text)
    rng.shuffle(parts)
    return _separator(text).join(parts)


def renamed(text: str, *, rng: random.Random, piece_chars: int = 500) -> str:
    """Replace every name by a new one in each piece of `piece_chars` characters, the same throughout a piece.

    Names are the capitalised words inside sentences and the speakers before a colon; of code, the identifiers that it
    defines, assigns or calls (built-in names and keywords stay). New names are pronounceable, and those of code keep
    their style (`snake_case`, `CamelCase`, `CONSTANT`).
    """
    is_code = looks_like_code(text)
    names = _identifiers(text) if is_code else frozenset(_NAME.findall(text)) | _speakers(text)
    maps: dict[int, dict[str, str]] = {}

    def replace(found: re.Match[str]) -> str:
        word = found.group()
        if word not in names:
            return word
        new = maps.setdefault(found.start() // piece_chars, {})
        if word not in new:
            new[word] = _new_identifier(word, rng) if is_code else _new_name(rng)
        return new[word]

    return _WORD.sub(replace, text)


def repeated(text: str, *, num_chars: int, rng: random.Random, edits: int = 5) -> str:
    """Repeat one block of the text to `num_chars`, each time with `edits` words replaced by other words of the block.

    The block is drawn from those of 60 words or more (else the longest is used); its first 150 words are repeated.
    """
    candidates = [part.split() for part in blocks(text)]
    long = [words for words in candidates if len(words) >= 60] or [max(candidates, key=len)]
    words = rng.choice(long)[:150]
    copies: list[str] = []
    total = 0
    while total < num_chars:
        copy = words[:]
        for _ in range(edits):
            copy[rng.randrange(len(copy))] = rng.choice(words)
        copies.append(" ".join(copy))
        total += len(copies[-1]) + 2
    return "\n\n".join(copies)[:num_chars]


def turns(text: str) -> list[str]:
    """List the turns of a conversation, one `Speaker: words` per line; in prose, the text in double quotation marks.

    Quotations get one of six speakers, chosen by the line's characters, as prose names none. Code has no turns.
    """
    lines = [line for line in text.split("\n") if _SPEAKER.match(line)]
    if len(lines) * 200 > len(text):
        return lines
    if looks_like_code(text):
        return []
    cast = ("anna", "ben", "carol", "dev", "emil", "fay")
    spoken = re.findall(r"[\"“]([^\"“”]{20,400})[\"”]", text)
    said = [" ".join(line.split()) for line in spoken]
    return [f"{cast[sum(map(ord, line)) % len(cast)]}: {line}" for line in said]


def mixed_turns(conversations: Sequence[Sequence[str]], *, num_chars: int, rng: random.Random) -> str:
    """Draw turns of the conversations at random, none twice, and write one per line, to `num_chars`.

    Order is destroyed inside each conversation as well: two that merely alternate could still be followed.
    """
    pool = [turn for conversation in conversations for turn in conversation]
    rng.shuffle(pool)
    chosen: list[str] = []
    total = 0
    for turn in pool:
        if total >= num_chars:
            break
        chosen.append(turn)
        total += len(turn) + 1
    return "\n".join(chosen)


def _separator(text: str) -> str:
    """Return the separator of a text's blocks: a blank line, a line end, or a space if it is all one line."""
    if text.count("\n\n") * LONG_BLOCK >= len(text):
        return "\n\n"
    return "\n" if "\n" in text.strip() else " "


def _line_blocks(text: str) -> list[str]:
    """Split text without blank lines into blocks: at the ends of hard-wrapped paragraphs, else at lines."""
    lines = [line for line in text.split("\n") if line.strip()]
    width = sorted(map(len, lines))[int(0.95 * len(lines))] if lines else 0
    full = sum(len(line) >= 0.8 * width for line in lines)
    if not 40 <= width <= 100 or 2 * full < len(lines):
        return lines
    parts: list[list[str]] = [[]]
    for line in lines:
        parts[-1].append(line)
        if len(line) < 0.85 * width and line.rstrip()[-1] in ".!?'\":;-":
            parts.append([])
    return ["\n".join(part) for part in parts]


def _speakers(text: str) -> frozenset[str]:
    """Return the words before a colon at the beginning of at least five lines."""
    found = _SPEAKER.findall(text)
    return frozenset(name for name in set(found) if found.count(name) >= 5)


def _identifiers(text: str) -> frozenset[str]:
    """Return names that the code defines, assigns, imports or calls, and all that are written like_this or LikeThis."""
    found = {name for pair in _DEFINED.findall(text) for name in pair if name}
    found |= set(re.findall(r"\b(?:[a-z]+_\w+|_\w{2,}|[A-Z][a-z]+[A-Z]\w+)\b", text))
    return frozenset(name for name in found if name not in _KEPT and not name.startswith("__"))


def _new_name(rng: random.Random) -> str:
    return rng.choice(_ONSETS) + rng.choice(_ENDINGS)


def _new_identifier(old: str, rng: random.Random) -> str:
    """Make a name of two words in the style of the old one."""
    start = "_" if old.startswith("_") else ""
    first, second = rng.choice(_CODE_WORDS), rng.choice(_CODE_WORDS)
    if old.isupper():
        return f"{start}{first}_{second}".upper()
    if old.lstrip("_")[:1].isupper():
        return f"{start}{first.title()}{second.title()}"
    return f"{start}{first}_{second}"


def _piece(text: str, num_chars: int, rng: random.Random) -> str:
    """Draw about `num_chars` characters from a random position of `text`, from white space to white space."""
    start = rng.randrange(len(text) - num_chars + 1)
    rough = text[start : start + num_chars]
    if start > 0:
        rough = rough[_first_space(rough) :]
    if start + num_chars < len(text):
        rough = rough[: len(rough) - _first_space(rough[::-1])]
    return rough.strip("\n") or text[start : start + num_chars]


def _first_space(text: str) -> int:
    """Index of the first white space, 0 if there is none."""
    found = re.search(r"\s", text)
    return found.start() if found else 0
