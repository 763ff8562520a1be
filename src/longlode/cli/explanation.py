"""Why a document scores as it does, as plain data: the strongest pairs, and the words that were announced."""

from typing import TYPE_CHECKING, Any

import numpy as np

from longlode.cli.announced_words import order_words
from longlode.cli.dependency_maps import read_pairs, strongest_pairs

if TYPE_CHECKING:
    from longlode.corpus import Document
    from longlode.models.scorer import LMScorer


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
        **order_words(tokens, scorer, top),
        "segments_read": [start, start + len(chosen)],
        "pairs": strongest_pairs(chosen, start, read_pairs(chosen, scorer), scorer, top),
    }
