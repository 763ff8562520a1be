"""`coherence`: log-odds that a document is one English text in its own order; a few pairs are read for other columns.

It looks no further back than 1,024 tokens, has the word frequencies of English and Python, and was fitted against nine
kinds of text that only look long (`python -m benchmarks.mining_quality`, docs/scorers.md). `profile` looks further
back, in more languages and more kinds of text.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from longlode.mining.coherence.background import packaged_background
from longlode.mining.coherence.features import (
    CountedWords,
    Measurements,
    coherence_score,
    packaged_weights,
    read_words,
)
from longlode.mining.requests import Request, Words
from longlode.mining.scorers.base import SegmentedDocument
from longlode.mining.scorers.pairwise import MeasuredPairs
from longlode.mining.scorers.row_pairs import RowPairsScorer


class CoherenceScorer(RowPairsScorer):
    """Score = log-odds, in nats, that the document is one text in its own order (`mining.coherence`).

    0 means even odds; the score does not grow with length. Its factors: passages reuse words of the text before them,
    rare words link both sides of every cut, and rare words return far away. Needs 8 segments.
    """

    name: ClassVar[str] = "coherence"
    version: ClassVar[int] = 3

    def options(self) -> dict[str, Any]:
        """The pair budget, and the fingerprint of the fitted weights."""
        return super().options() | {"weights": packaged_weights().fingerprint}

    @property
    def asks(self) -> tuple[type[Request], ...]:
        """Words besides tokens and pairs."""
        return (Words, *super().asks)

    def text_requests(self, text: str) -> Sequence[Request]:
        """The words of a text, with their frequency in the background corpus."""
        return (Words(text, _counted_words),)

    def score(self, doc: SegmentedDocument, pairs: MeasuredPairs) -> tuple[float, float | None]:
        """The log-odds and their standard error; the pairs have no part in them."""
        (words,) = doc.of_text
        return coherence_score(Measurements(doc.all_tokens, words.kept), packaged_weights())


def _counted_words(text: str) -> CountedWords:
    return read_words(text, packaged_background())
