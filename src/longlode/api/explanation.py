"""Reasons for a document's score, as plain data: the scorer's own explanation, and the strongest pairs of segments."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from longlode.api.announced_words import order_words
from longlode.api.dependency_maps import read_pairs, strongest_pairs
from longlode.api.pick_document import pick_document
from longlode.api.readers import load_reader
from longlode.api.scored_rows import is_scores, scorer_of
from longlode.api.scoring import with_weights
from longlode.api.watch import SILENT, Watch
from longlode.core.defaults import SCORER
from longlode.core.errors import ConfigError

if TYPE_CHECKING:
    from longlode.corpus import Document
    from longlode.mining import Scorer
    from longlode.mining.coherence.features import Seam
    from longlode.readers.lm import LMReader

NUM_SEGMENTS = 48
SEAM_CHARS = 160
"""Characters shown on either side of the weakest boundary."""


def explain(
    document: str | os.PathLike[str],
    *,
    row: int | None = None,
    document_id: str | None = None,
    top: int = 5,
    scorer: "str | Scorer" = SCORER,
    weights: str | os.PathLike[str] | None = None,
    model: str | None = None,
    segment: int = 128,
    start: int = 0,
    segments: int = NUM_SEGMENTS,
    text_field: str = "text",
    encoding: str = "utf-8",
    watch: Watch = SILENT,
) -> dict[str, Any]:
    """Explain the score of one document, as `longlode explain` does.

    Args: document, a file, a scores folder with `document_id` (then its scorer, unless another is given), or an input
      of several documents of which `row` (from 0) or `document_id` names one; top, words and pairs to give; scorer,
      "profile", "coherence" or another with an `explain`; weights, folder of `fit_score`, for the profile; model, reads
      pairs of segments, None for none (the starter, for "coherence"); segment, tokens per segment; start, segments,
      those read in pairs; text_field, of records; encoding, of texts; watch, receives notes.
    Returns: id, source, file, row; of "coherence" as `explain_document`, else `explanation`, of the scorer
      (`mining.profile_explanation` has its keys), and with a model the fields of `explain_pairs`.
    Raises: ConfigError for a row and an id, and for a scorer without explanations; InputError when there is no such
      document.
    """
    if row is not None and document_id is not None:
        raise ConfigError("explain got --row and --id; expected one of them.")
    picked = pick_document(
        os.fspath(document), row=row, document_id=document_id, text_field=text_field, encoding=encoding
    )
    from longlode.mining import make_scorer

    if scorer == SCORER and is_scores(document):
        scorer = scorer_of(document)
    options = with_weights(None, weights)
    chosen = make_scorer(scorer, options=options) if isinstance(scorer, str) else scorer
    by_coherence = chosen.name == "coherence"
    told = None if by_coherence else chosen.explain(picked.text, top)
    if told is None and not by_coherence:
        raise ConfigError(
            f"the scorer {chosen.name!r} does not explain its score; expected profile or coherence, or --model beside "
            "either, which reads pairs of segments."
        )
    found = _place(picked) | ({} if told is None else {"explanation": told})
    if model is None and not by_coherence:
        return found
    reader, _ = load_reader(model or "starter", segment, watch=watch)
    watch.note(f"reading up to {segments * (segments - 1) // 2:,} pairs of segments")
    if by_coherence:
        return explain_document(picked, reader, start=start, num_segments=segments, top=top)
    return found | explain_pairs(picked.text, reader, start=start, num_segments=segments, top=top)


def _place(document: "Document") -> dict[str, Any]:
    return {name: getattr(document, name) for name in ("id", "source", "file", "row")}


def explain_document(
    document: "Document", reader: "LMReader", *, start: int, num_segments: int, top: int
) -> dict[str, Any]:
    """Explain a document by the coherence score, as `longlode explain --scorer coherence` does; JSON-able.

    Args: start, the first segment to read in pairs; num_segments, how many from there; top, how many words and
      how many pairs to give.
    Returns: id, source, file, row; the fields of `coherence_parts`, `order_words` and `explain_pairs`.
    """
    tokens = np.asarray(reader.encode([document.text])[0], dtype=np.int64)
    return {
        **_place(document),
        **coherence_parts(document.text, tokens, reader.segment),
        **order_words(tokens, reader.tokenizer, reader.segment, top),
        **explain_pairs(document.text, reader, start=start, num_segments=num_segments, top=top),
    }


def explain_pairs(
    text: str, reader: "LMReader", *, start: int, num_segments: int, top: int
) -> dict[str, Any]:
    """The pairs of segments of a text that help most, JSON-able.

    Args: as of `explain_document`.
    Returns: num_tokens, num_segments, segment (tokens), reader; `pairs`, strongest first; segments_read [first, stop).
    """
    from longlode.mining.segments import split_segments

    tokens = np.asarray(reader.encode([text])[0], dtype=np.int64)
    segments = split_segments(tokens, reader.segment)
    start = min(start, max(0, len(segments) - 2))
    chosen = segments[start : start + num_segments]
    return {
        "num_tokens": len(tokens),
        "num_segments": len(segments),
        "segment": reader.segment,
        "reader": reader.fingerprint,
        "segments_read": [start, start + len(chosen)],
        "pairs": strongest_pairs(chosen, start, read_pairs(chosen, reader), reader.tokenizer, top),
    }


def coherence_parts(text: str, tokens: np.ndarray, segment: int) -> dict[str, Any]:
    """Coherence score of a text and its components, JSON-able.

    Args: tokens int `[n]`, those of the text; segment, tokens of a segment.
    Returns: score and score_se (nats) as the `coherence` scorer gives them, null for a text that is too short for it;
      factors `{order, seams, names}`, probabilities, absent without a score; `seam` {share, typical, span
      (words), character, before, after}, the boundary whose sides share least, null if the text cannot be cut.
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
    """The boundary with the text on either side."""
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
