"""Why a document scores as it does, as plain data: the strongest pairs, and the words that were announced."""

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from longlode.cli.dependency_maps import PairReadings, read_pairs

if TYPE_CHECKING:
    from longlode.corpus import Document
    from longlode.mining.announcements import Announcement
    from longlode.models.scorer import LMScorer

SNIPPET_TOKENS = 24
"""Tokens of context shown on either side of an announced word."""
_PIECES_PER_WORD = 4
"""Token types looked at for each word shown: a rare name is spelt with several."""
_REPLACEMENT = "\ufffd"


def explain_document(
    document: "Document", scorer: "LMScorer", *, start: int, num_segments: int, top: int
) -> dict[str, Any]:
    """Everything that `longlode explain` shows, JSON-able.

    Args: start, the first segment to read in pairs; num_segments, how many from there; top, how many words and
      how many pairs to give.
    Returns: id, source, file, row, num_tokens, num_segments, segment (tokens), scorer; score and score_se as the
      default estimator gives them, or null with a `reason`; near and span in tokens; `announcements` and `pairs`,
      strongest first; segments_read [first, stop) of the pairs.
    """
    from longlode.mining.segments import split_segments

    tokens = np.asarray(scorer.encode([document.text])[0], dtype=np.int64)
    segments = split_segments(tokens, scorer.segment)
    start = min(start, max(0, len(segments) - 2))
    chosen = segments[start : start + num_segments]
    place = {name: getattr(document, name) for name in ("id", "source", "file", "row")}
    sizes = {"num_tokens": len(tokens), "num_segments": len(segments), "segment": scorer.segment}
    return {
        **place,
        **sizes,
        "scorer": scorer.fingerprint,
        **_order(tokens, len(segments), scorer, top),
        "segments_read": [start, start + len(chosen)],
        "pairs": _strongest(chosen, start, read_pairs(chosen, scorer), scorer, top),
    }


def _order(tokens: np.ndarray, num_segments: int, scorer: "LMScorer", top: int) -> dict[str, Any]:
    """The default score and the words it is made of; without a score, why."""
    from longlode.mining.announcements import announcements
    from longlode.mining.estimators.default import DefaultEstimator, order_score, spans

    least = DefaultEstimator.min_segments
    if num_segments < least:
        reason = f"{len(tokens)} tokens; the default score needs {least * scorer.segment} ({least} segments)"
        return {"score": None, "score_se": None, "reason": reason, "announcements": []}
    near, span = spans(len(tokens))
    score, error = order_score(tokens)
    found = announcements(tokens, near=near, span=span, top=_PIECES_PER_WORD * top)
    return {
        "score": score,
        "score_se": error,
        "reason": "",
        "near": near,
        "span": span,
        "announcements": _by_word([_entry(tokens, one, scorer) for one in found])[:top],
    }


def _entry(tokens: np.ndarray, one: "Announcement", scorer: "LMScorer") -> dict[str, Any]:
    used = _snippet(tokens, one.used_at, scorer)
    return {
        "word": _word(used),
        "tokens": [used["text"]],
        "contribution_nats": one.contribution_nats,
        "num_uses": one.num_uses,
        "num_announced": one.num_announced,
        "expected": one.expected,
        "announced": _snippet(tokens, one.announced_at, scorer),
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


def _snippet(tokens: np.ndarray, place: int, scorer: "LMScorer") -> dict[str, Any]:
    """A token in its context: {token: position, segment, before, text, after}."""
    first = max(0, place - SNIPPET_TOKENS)
    pieces = token_texts(tokens[first : place + SNIPPET_TOKENS + 1], scorer)
    at = place - first
    return {
        "token": place,
        "segment": place // scorer.segment,
        "before": "".join(pieces[:at]),
        "text": pieces[at],
        "after": "".join(pieces[at + 1 :]),
    }


def _strongest(
    segments: np.ndarray, start: int, pairs: PairReadings, scorer: "LMScorer", top: int
) -> list[dict[str, Any]]:
    """The `top` strongest pairs, each with both texts as pieces [text, gain in nats], a source's gains null.

    The first token of a segment is never scored: its gain is null as well.
    """
    best = np.argsort(-pairs.strengths, kind="stable")[:top]
    found = []
    for pair in best:
        target, source = int(pairs.targets[pair]), int(pairs.sources[pair])
        gains = [None, *(round(float(gain), 4) for gain in pairs.token_gains_nats[pair])]
        found.append(
            {
                "target": start + target,
                "source": start + source,
                "strength": float(pairs.strengths[pair]),
                "gain_nats": float(pairs.gains_nats[pair]),
                "source_tokens": [[text, None] for text in token_texts(segments[source], scorer)],
                "target_tokens": [
                    list(piece) for piece in zip(token_texts(segments[target], scorer), gains, strict=True)
                ],
            }
        )
    return found


def token_texts(tokens: np.ndarray, scorer: "LMScorer") -> list[str]:
    """The text of each token such that together they are the text of all.

    A token may hold part of a character only; the token that completes it gets the character, those before "".
    """
    texts: list[str] = []
    done = ""
    ids = tokens.tolist()
    for stop in range(1, len(ids) + 1):
        whole = scorer.tokenizer.decode(ids[:stop])
        if not whole.startswith(done):  # a tokenizer that tidies up what it has said before
            texts.append(scorer.tokenizer.decode(ids[stop - 1 : stop]))
            done = whole
        elif whole.endswith(_REPLACEMENT) and stop < len(ids):
            texts.append("")
        else:
            texts.append(whole[len(done) :])
            done = whole
    return texts
