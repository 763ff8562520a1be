"""Words section: the words that make up the order contrast of a document, each in two of its places."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from longlode.report.text import as_number, clipped, visible

MAX_WORDS = 12
_SNIPPET_CHARS = 160
_WORD_CHARS = 60


@dataclass(frozen=True)
class Place:
    """A word in its context: its position in tokens, the text around it on one line, its segment or -1.

    token is that of the scored piece of the word; `word` is the whole word.
    """

    token: int
    before: str
    word: str
    after: str
    segment: int = -1


@dataclass(frozen=True)
class Word:
    """An announced word. contribution: nats per token that it adds to the order contrast; expected: a share.

    in_map: whether the map of the document has a cell for the segments of `announced` and `used`.
    """

    text: str
    contribution: float
    num_uses: int | None
    num_announced: int | None
    expected: float | None
    announced: Place
    used: Place
    in_map: bool

    @property
    def distance(self) -> int:
        """Tokens from the announcement to the use."""
        return self.used.token - self.announced.token


@dataclass(frozen=True)
class WordsView:
    """Data for the template on a document's words.

    score: the order contrast, nats per token. reason: why it has none, or empty.
    """

    score: float | None
    score_se: float | None
    reason: str
    near: int | None
    span: int | None
    words: list[Word]


def words_view(order: Any, num_mapped: int) -> WordsView | None:
    """Lay out `order` of a document in explain.json; None where there is none, as in older files.

    Args: num_mapped, segments of the document's map.
    """
    if not isinstance(order, Mapping):
        return None
    given = order.get("announcements")
    words = [_word(one, num_mapped) for one in given[:MAX_WORDS]] if isinstance(given, list) else []
    return WordsView(
        score=as_number(order.get("order_contrast", order.get("score"))),
        score_se=as_number(order.get("order_contrast_se", order.get("score_se"))),
        reason=clipped(order.get("reason") or "", 200),
        near=_count(order.get("near")),
        span=_count(order.get("span")),
        words=[word for word in words if word is not None],
    )


def _word(one: Any, num_mapped: int) -> Word | None:
    """A usable entry: a word with what it adds and both places, the announcement first."""
    if not isinstance(one, Mapping):
        return None
    announced, used = _place(one.get("announced")), _place(one.get("used"))
    contribution = as_number(one.get("contribution_nats"))
    if announced is None or used is None or contribution is None or announced.token >= used.token:
        return None
    if announced.word.casefold() != used.word.casefold():
        return None  # two words that share a piece, which says nothing to a reader
    return Word(
        text=used.word or repr(one.get("word"))[:_WORD_CHARS],
        contribution=contribution,
        num_uses=_count(one.get("num_uses")),
        num_announced=_count(one.get("num_announced")),
        expected=as_number(one.get("expected")),
        announced=announced,
        used=used,
        in_map=announced.segment < used.segment < num_mapped,
    )


def _place(value: Any) -> Place | None:
    if not isinstance(value, Mapping):
        return None
    token, segment = _count(value.get("token")), _count(value.get("segment"))
    if token is None or segment is None:
        return None
    return replace(
        snippet(token, value.get("before"), value.get("text"), value.get("after")), segment=segment
    )


def snippet(token: int, before: Any, text: Any, after: Any) -> Place:
    """A place from the text of records, cut to a line, with its whole word."""
    before, word, after = _whole_word(*(_one_line(part) for part in (before, text, after)))
    return Place(
        token=token,
        before=before.lstrip() if len(before) <= _SNIPPET_CHARS else "\u2026" + before[-_SNIPPET_CHARS:],
        word=clipped(word, _WORD_CHARS),
        after=clipped(after, _SNIPPET_CHARS).rstrip(),
    )


def _whole_word(before: str, piece: str, after: str) -> tuple[str, str, str]:
    """Move the letters that touch a piece of a word into it, and the white space at its edges out of it."""
    if not piece.strip():
        return before, piece, after
    start = len(piece) - len(piece.lstrip())
    before, piece = before + piece[:start], piece[start:]
    stop = len(piece.rstrip())
    piece, after = piece[:stop], piece[stop:] + after
    if re.match(r"\w", piece):
        start = len(before) - _leading_word(before[::-1])
        before, piece = before[:start], before[start:] + piece
    if re.search(r"\w$", piece):
        stop = _leading_word(after)
        piece, after = piece + after[:stop], after[stop:]
    return before, piece, after


def _leading_word(text: str) -> int:
    """Number of characters of the word that `text` begins with."""
    found = re.match(r"\w+", text)
    return found.end() if found else 0


def _one_line(text: Any) -> str:
    return re.sub(r"\s+", " ", visible(str(text or "")))


def _count(value: Any) -> int | None:
    found = as_number(value)
    return None if found is None or found < 0 else int(found)
