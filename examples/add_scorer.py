"""Add a scorer of your own: the share of a document's rare words that return far from where they stood last.

It reads words only, so no model and no tokenizer is loaded. To use it from the command line, put the class into a
module that Python can import: `longlode score corpus -o scores --scorer my_module:FarReturn`.
"""

import sysconfig
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import longlode
from longlode.mining import SCORERS, DocumentScore, ExtraColumn, Scorer
from longlode.mining.requests import Words
from longlode.mining.scorers.base import SegmentedDocument


@dataclass(frozen=True, kw_only=True)
class FarReturnOptions:
    """distance: words back that count as far. most: occurrences of a word that still counts as rare."""

    distance: int = 500
    most: int = 5


def words_of(text: str) -> list[str]:
    """Return what the scorer keeps of a text; the text itself is let go."""
    return text.split()


@SCORERS.register
class FarReturn(Scorer):
    """Score = share of rare words that return at least `distance` words later; 0: none does."""

    name = "far_return"
    asks = (Words,)
    min_segments = 0
    options_type = FarReturnOptions
    extra_columns = (
        ExtraColumn("rare_words", "int", "words", "different words that count as rare; 0: none"),
    )

    def text_requests(self, text: str) -> list[Words]:
        """Ask for the words of the text."""
        return [Words(text, keep=words_of)]

    def finish(self, doc: SegmentedDocument, readings: Sequence[Any]) -> DocumentScore:
        """Count the rare words whose first and last occurrence are far apart."""
        words = [word for reading in doc.of_text for word in reading.kept]
        counts = Counter(words)
        first = {word: place for place, word in reversed(list(enumerate(words)))}
        last = {word: place for place, word in enumerate(words)}
        rare = [word for word, count in counts.items() if 2 <= count <= self.own.most]
        far = sum(last[word] - first[word] >= self.own.distance for word in rare)
        return DocumentScore(far / len(rare) if rare else 0.0, extras={"rare_words": len(rare)})


if __name__ == "__main__":
    files = [str(path) for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-c]*.py"))[:20]]
    longlode.score(files, "scores", scorer="far_return", scorer_options={"distance": 1000}, explain=False)
    table = longlode.read_result("scores").table().sort_by([("score", "descending")])
    for row in table.slice(0, 5).to_pylist():
        print(f"{row['score']:.2f}  {row['extras.rare_words']:5} rare words  {row['id']}")
    assert 0 < table["score"][0].as_py() <= 1
