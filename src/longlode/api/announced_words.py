"""Words that make up the order contrast, each with one place that announces it and one that uses it."""

import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from longlode.mining.coherence.announcements import Announcement

SNIPPET_TOKENS = 24
"""Tokens of context shown on either side of an announced word."""
_PIECES_PER_WORD = 4
"""Token types looked at for each word shown: a rare name is spelt with several."""
_REPLACEMENT = "\ufffd"


def order_words(tokens: np.ndarray, tokenizer: Any, segment: int, top: int) -> dict[str, Any]:
    """The order contrast of a document and the `top` words that add most to it, JSON-able.

    Args: tokens int `[n]`, the whole document; tokenizer, decodes them; segment, tokens of a segment.
    Returns: order_contrast (nats per token) and order_contrast_se as the `order` scorer gives them, or null with a
      `reason`; near and span in tokens (absent without them); `announcements`, most first, each with word, tokens,
      contribution_nats, num_uses, num_announced, expected and one announcement and its use in context (announced,
      used).
    """
    from longlode.mining.coherence.announcements import announcements
    from longlode.mining.coherence.features import spans
    from longlode.mining.scorers.order import OrderScorer, order_score

    least = OrderScorer.min_segments
    num_segments = len(tokens) // segment
    if num_segments < least:
        needed = f"{least * segment} ({least} segments)"
        reason = f"{len(tokens)} tokens; the coherence score and its words need {needed}"
        return {"order_contrast": None, "order_contrast_se": None, "reason": reason, "announcements": []}
    near, span = spans(len(tokens))
    score, error = order_score(tokens)
    found = announcements(tokens, near=near, span=span, top=_PIECES_PER_WORD * top)
    return {
        "order_contrast": score,
        "order_contrast_se": error,
        "reason": "",
        "near": near,
        "span": span,
        "announcements": _by_word([_entry(tokens, one, tokenizer, segment) for one in found])[:top],
    }


def _entry(tokens: np.ndarray, one: "Announcement", tokenizer: Any, segment: int) -> dict[str, Any]:
    used = _snippet(tokens, one.used_at, tokenizer, segment)
    return {
        "word": _word(used),
        "tokens": [used["text"]],
        "contribution_nats": one.contribution_nats,
        "num_uses": one.num_uses,
        "num_announced": one.num_announced,
        "expected": one.expected,
        "announced": _snippet(tokens, one.announced_at, tokenizer, segment),
        "used": used,
    }


def _word(place: dict[str, Any]) -> str:
    """The whole word that a token is part of, without the punctuation around it; the token if it is no word."""
    before = re.search(r"\w*$", place["before"] if re.match(r"\w", place["text"]) else "")
    after = re.match(r"\w*", place["after"] if re.search(r"\w$", place["text"]) else "")
    whole = (before.group() if before else "") + place["text"] + (after.group() if after else "")
    return whole.strip() or place["text"]


def _by_word(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pieces of one word as one entry, with the figures and places of the piece that adds most."""
    words: dict[str, dict[str, Any]] = {}
    for entry in entries:
        known = words.setdefault(entry["word"], entry)
        if known is not entry:
            known["contribution_nats"] += entry["contribution_nats"]
            known["tokens"] += entry["tokens"]
    return sorted(words.values(), key=lambda entry: -entry["contribution_nats"])


def _snippet(tokens: np.ndarray, place: int, tokenizer: Any, segment: int) -> dict[str, Any]:
    """A token in its context: {token: position, segment, before, text, after}."""
    first = max(0, place - SNIPPET_TOKENS)
    pieces = token_texts(tokens[first : place + SNIPPET_TOKENS + 1], tokenizer)
    at = place - first
    return {
        "token": place,
        "segment": place // segment,
        "before": "".join(pieces[:at]),
        "text": pieces[at],
        "after": "".join(pieces[at + 1 :]),
    }


def token_texts(tokens: np.ndarray, tokenizer: Any) -> list[str]:
    """The text of each token such that together they are the text of all.

    A token may hold part of a character only; the token that completes it gets the character, those before "".
    """
    texts: list[str] = []
    done = ""
    ids = tokens.tolist()
    for stop in range(1, len(ids) + 1):
        whole = tokenizer.decode(ids[:stop])
        if not whole.startswith(done):  # a tokenizer that tidies up what it has said before
            texts.append(tokenizer.decode(ids[stop - 1 : stop]))
            done = whole
        elif whole.endswith(_REPLACEMENT) and stop < len(ids):
            texts.append("")
        else:
            texts.append(whole[len(done) :])
            done = whole
    return texts
