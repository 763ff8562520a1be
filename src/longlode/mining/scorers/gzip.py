"""`gzip`: share of bytes that gzip saves, a baseline without a model."""

from collections.abc import Sequence
from typing import Any, ClassVar

from longlode.mining.scorers.base import DocumentScore, NoOptions, Scorer, SegmentedDocument


class GzipScorer(Scorer):
    """Score = 1 - compressed / raw bytes: higher = more of the text is predicted by the text before it.

    gzip looks back 32 KiB, so its "long range" is about 60 segments; repetitive logs score highest.
    """

    name: ClassVar[str] = "gzip"
    version: ClassVar[int] = 2
    min_segments: ClassVar[int] = 0
    options_type: ClassVar[type] = NoOptions

    def options(self) -> dict[str, Any]:
        """No settings, as neither pairs nor segments are read."""
        return {}

    def finish(self, doc: SegmentedDocument, readings: Sequence[Any]) -> DocumentScore:
        """Return 1 - ratio; the engine never sends an empty text."""
        assert doc.gzip_ratio is not None, "an empty text is too_short before it comes here"
        return DocumentScore(score=1.0 - doc.gzip_ratio)
