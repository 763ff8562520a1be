"""Why a document scores as it does, as plain data: factors, the weakest seam, announced words, strongest pairs."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from longlode.api.announced_words import order_words
from longlode.api.dependency_maps import read_pairs, strongest_pairs
from longlode.api.pick_document import pick_document
from longlode.api.scoring import load_reader
from longlode.api.watch import SILENT, Watch
from longlode.core.errors import ConfigError

if TYPE_CHECKING:
    from longlode.corpus import Document
    from longlode.mining.coherence.features import Seam
    from longlode.readers.lm import LMReader

NUM_SEGMENTS = 48
SEAM_CHARS = 160
"""Characters shown on either side of the weakest seam."""


def explain(
    document: str | os.PathLike[str],
    *,
    row: int | None = None,
    document_id: str | None = None,
    top: int = 5,
    model: str = "starter",
    segment: int = 128,
    start: int = 0,
    segments: int = NUM_SEGMENTS,
    text_field: str = "text",
    watch: Watch = SILENT,
) -> dict[str, Any]:
    """Explain the score of one document, as `longlode explain` does.

    Args: document, a file, or an input of several documents of which `row` (from 0) or `document_id` names one; top,
      words and pairs to give; model, reads the pairs; segment, tokens per segment; start, segments, those read in
      pairs; text_field, of records; watch, hears of notes.
    Returns: as `explain_document`.
    Raises: ConfigError for a row and an id; InputError when there is no such document.
    """
    if row is not None and document_id is not None:
        raise ConfigError("explain got --row and --id; expected one of them.")
    picked = pick_document(os.fspath(document), row=row, document_id=document_id, text_field=text_field)
    reader, _ = load_reader(model, segment, watch=watch)
    watch.note(f"reading up to {segments * (segments - 1) // 2:,} pairs of segments")
    return explain_document(picked, reader, start=start, num_segments=segments, top=top)


def explain_document(
    document: "Document", reader: "LMReader", *, start: int, num_segments: int, top: int
) -> dict[str, Any]:
    """Everything that `longlode explain` shows, JSON-able.

    Args: start, the first segment to read in pairs; num_segments, how many from there; top, how many words and
      how many pairs to give.
    Returns: id, source, file, row, num_tokens, num_segments, segment (tokens), reader; what `coherence_parts` and
      `order_words` give; `pairs`, strongest first; segments_read [first, stop) of the pairs.
    """
    from longlode.mining.segments import split_segments

    tokens = np.asarray(reader.encode([document.text])[0], dtype=np.int64)
    segments = split_segments(tokens, reader.segment)
    start = min(start, max(0, len(segments) - 2))
    chosen = segments[start : start + num_segments]
    place = {name: getattr(document, name) for name in ("id", "source", "file", "row")}
    sizes = {"num_tokens": len(tokens), "num_segments": len(segments), "segment": reader.segment}
    return {
        **place,
        **sizes,
        "reader": reader.fingerprint,
        **coherence_parts(document.text, tokens, reader.segment),
        **order_words(tokens, reader.tokenizer, reader.segment, top),
        "segments_read": [start, start + len(chosen)],
        "pairs": strongest_pairs(chosen, start, read_pairs(chosen, reader), reader.tokenizer, top),
    }


def coherence_parts(text: str, tokens: np.ndarray, segment: int) -> dict[str, Any]:
    """The coherence score of a text and what it is made of, JSON-able.

    Args: tokens int `[n]`, those of the text; segment, tokens of a segment.
    Returns: score and score_se (nats) as the `coherence` scorer gives them, null for a text that is too short for it;
      factors {order, seams, names}, probabilities, absent without a score; seam {share, typical, span (words),
      character, before, after}, the place where the text holds together least, null if it cannot be cut.
    """
    from longlode.mining.coherence.background import packaged_background
    from longlode.mining.coherence.features import (
        Measurements,
        coherence_score,
        packaged_weights,
        read_words,
        weakest_seam,
    )
    from longlode.mining.scorers.coherence import CoherenceScorer

    if len(tokens) < CoherenceScorer.min_segments * segment:
        return {"score": None, "score_se": None, "seam": None}
    words = read_words(text, packaged_background())
    measured = Measurements(tokens, words)
    score, error = coherence_score(measured, packaged_weights())
    factors = packaged_weights().factors(measured.features())
    seam = weakest_seam(words)
    return {
        "score": score,
        "score_se": error,
        "factors": {name: float(np.exp(log_p)) for name, log_p in factors.items()},
        "seam": None if seam is None else _shown_seam(text, seam),
    }


def _shown_seam(text: str, seam: "Seam") -> dict[str, Any]:
    """The seam with the text on either side."""
    from longlode.corpus.words import word_starts

    at = word_starts(text)[seam.word]
    return {
        "share": seam.share,
        "typical": seam.typical,
        "span": seam.span,
        "character": at,
        "before": text[max(0, at - SEAM_CHARS) : at],
        "after": text[at : at + SEAM_CHARS],
    }
