"""Ways to damage bytes: a few at random, as disks, networks, editors and broken writers do."""

import json
import random
from collections.abc import Callable, Sequence

_WORDS = (
    b"\x00",
    b"\xff",
    b"\n",
    b"\r\n",
    b"\n\n\n",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"]",
    b",",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    b"\\ud800",
    b"null",
    b"NaN",
    b"-1",
    b"0",
    b"1e999",
    b"99999999999999999999",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b" " * 70,
    b"[" * 300,
    b"PAR1",
    b"ARROW1",
    b"\x28\xb5\x2f\xfd",
    b"\x1f\x8b\x08",
)


def damage(data: bytes, draw: random.Random, *, most: int = 4) -> bytes:
    """One to `most` changes of `data`, of random kinds at random places."""
    for _ in range(draw.choice((1, 1, 2, draw.randint(1, most)))):
        data = draw.choice(_CHANGES)(data, draw)
    return data


def cut(data: bytes, draw: random.Random) -> bytes:
    """The beginning of `data`."""
    return data[: draw.randrange(len(data) + 1)]


def _flip(data: bytes, draw: random.Random) -> bytes:
    if not data:
        return data
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]


def _overwrite(data: bytes, draw: random.Random) -> bytes:
    at, word = draw.randrange(len(data) + 1), _word(draw)
    return data[:at] + word + data[at + len(word) :]


def _insert(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + _word(draw) + data[at:]


def _remove(data: bytes, draw: random.Random) -> bytes:
    start, stop = _span(data, draw)
    return data[:start] + data[stop:]


def _double(data: bytes, draw: random.Random) -> bytes:
    start, stop = _span(data, draw)
    return data[:stop] + data[start:stop] * draw.choice((1, 1, 3)) + data[stop:]


def _move(data: bytes, draw: random.Random) -> bytes:
    start, stop = _span(data, draw)
    rest = data[:start] + data[stop:]
    at = draw.randrange(len(rest) + 1)
    return rest[:at] + data[start:stop] + rest[at:]


def _blank(data: bytes, draw: random.Random) -> bytes:
    start, stop = _span(data, draw)
    return data[:start] + bytes([draw.choice((0, 0, 255, 32, 10))]) * (stop - start) + data[stop:]


def _span(data: bytes, draw: random.Random) -> tuple[int, int]:
    start = draw.randrange(len(data) + 1)
    length = draw.choice((1, 4, 16, 100, len(data)))
    return start, min(len(data), start + draw.randint(0, length))


def _word(draw: random.Random) -> bytes:
    return draw.choice(_WORDS) if draw.random() < 0.7 else draw.randbytes(draw.randint(1, 12))


_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    _flip,
    _overwrite,
    _overwrite,
    _insert,
    _remove,
    _double,
    _move,
    _blank,
    cut,
)


def odd_record(draw: random.Random) -> bytes:
    """One line that is a record, nearly: odd types, odd numbers, odd nesting, odd escapes."""
    text = draw.choice(("fine words in a row", "ünï ", "", "\u2028 line", "a\x00b", "\ud800 lone", " "))
    depth = draw.choice((3, 200, 260, 1100, 3000))
    deep = "[" * depth + "]" * depth
    lines: Sequence[str] = (
        json.dumps({"id": draw.choice(("x", 7, True, None, [], 1.5, "")), "text": text}),
        json.dumps(
            {"text": draw.choice((None, 1, True, [], {}, text)), "source": draw.choice(("s", 3, None, ""))}
        ),
        '{"text": "one", "text": "two", "id": 1}',
        f'{{"text": "deep", "meta": {deep}}}',
        f'{{"text": {deep}}}',
        f'{{"text": "number", "n": {draw.choice(("1e999", "NaN", "-Infinity", "9" * 30, "9" * 5000, "-0", "01"))}}}',
        '{"text": "half \\ud83d", "more": "\\ude00"}',
        '{"text": "open',
        '{"TEXT": "other name"}',
        '["text"]',
        "42",
        '{"text": "tail"} {"text": "two on a line"}',
        '\ufeff{"text": "a mark in the middle"}',
        "   \t ",
        "\x0c",
    )
    return draw.choice(lines).encode("utf-8", "surrogatepass")
