"""Documents without long-range dependency, made on purpose: what a score must tell from the real thing.

Each function takes real text and a `random.Random` and destroys one property while it keeps the others:

    spliced            pieces of many texts, one after the other: local fluency, no dependency between pieces
    spliced_documents  the same with long pieces: coherence that ends after a page or two
    shuffled           one text's paragraphs in random order: the same words, the order gone
    renamed            every name replaced anew in every piece: local coherence, no entity carries over
    repeated           one paragraph again and again with small edits: repetition, nothing to follow
    synthetic_log      machine log lines from a few templates: format and repetition, no story
"""

import random
import re
from collections.abc import Sequence

from longlode.core.errors import ConfigError

_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}")
_LOG_LINES = (
    "request {verb} /api/v1/{service}/{number} completed in {small}ms status={code}",
    "connection from 10.{byte}.{byte2}.{byte3} accepted by worker-{digit}",
    "cache miss for key {service}:{number} loading from shard={digit}",
    "heartbeat ok service={service} uptime={number}s",
    "retrying job {number} attempt {digit} of 9 after timeout",
    "user {number} logged in from 192.168.{byte}.{byte2}",
    "flushed {number} events to topic {service}-events partition {digit}",
)
_SERVICES = ("auth", "billing", "gateway", "search", "cart", "mailer", "indexer", "scheduler")
_LEVELS = ("DEBUG", "INFO", "INFO", "INFO", "WARN", "ERROR")


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


def spliced_documents(
    texts: Sequence[str], *, num_chars: int, rng: random.Random, document_chars: int = 6000
) -> str:
    """Join long pieces (`document_chars` give or take a half) of different texts, to `num_chars`."""
    length = int(document_chars * rng.uniform(0.5, 1.5))
    return spliced(texts, num_chars=num_chars, rng=rng, piece_chars=length)


def shuffled(text: str, *, rng: random.Random) -> str:
    """Put the paragraphs (runs of text between blank lines) in random order."""
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if part.strip()]
    rng.shuffle(paragraphs)
    return "\n\n".join(paragraphs)


def renamed(text: str, *, rng: random.Random, piece_chars: int = 500) -> str:
    """Give every capitalised name a new made-up name in every piece of `piece_chars` characters."""
    names = sorted(set(_NAME.findall(text)))
    pieces = []
    for piece in re.findall(rf"(?s).{{1,{piece_chars}}}(?:\s|$)|.{{{piece_chars}}}", text):
        new = {name: "".join(rng.choice("aeioulnrst") for _ in range(len(name))).title() for name in names}
        words = re.split(r"([A-Z][a-z]{2,})", piece)
        pieces.append("".join(new.get(word, word) for word in words))
    return "".join(pieces)


def repeated(text: str, *, num_chars: int, rng: random.Random, edits: int = 5) -> str:
    """Repeat the longest early paragraph, each time with `edits` words replaced, to `num_chars`."""
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if part.strip()][:50]
    words = max(paragraphs, key=len).split()[:150]
    copies: list[str] = []
    while sum(map(len, copies)) < num_chars:
        copy = words[:]
        for _ in range(edits):
            copy[rng.randrange(len(copy))] = rng.choice(words)
        copies.append(" ".join(copy))
    return "\n\n".join(copies)[:num_chars]


def synthetic_log(*, num_chars: int, rng: random.Random) -> str:
    """Write machine log lines from two to six templates, with rising time stamps, to `num_chars`."""
    templates = rng.sample(_LOG_LINES, rng.randint(2, 6))
    lines: list[str] = []
    total, second = 0, 0
    while total < num_chars:
        second += rng.randint(0, 3)
        message = rng.choice(templates).format(
            verb=rng.choice(("GET", "POST")),
            service=rng.choice(_SERVICES),
            number=rng.randint(1, 99_999),
            small=rng.randint(1, 900),
            code=rng.choice((200, 200, 404, 500)),
            digit=rng.randint(0, 9),
            byte=rng.randint(0, 255),
            byte2=rng.randint(0, 255),
            byte3=rng.randint(0, 255),
        )
        clock = f"{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        day = 1 + second // 86_400
        lines.append(f"2026-03-{day:02d} {clock} {rng.choice(_LEVELS)} [{rng.choice(_SERVICES)}] {message}")
        total += len(lines[-1]) + 1
    return "\n".join(lines)[:num_chars]


def _piece(text: str, num_chars: int, rng: random.Random) -> str:
    """About `num_chars` characters from a random place of `text`, begun and ended at white space."""
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
