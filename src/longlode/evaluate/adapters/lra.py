"""Long Range Arena's two tasks of real text (arXiv 2011.04006), as questions to a model that is trained already.

LRA trains from scratch on bytes of these files, cut at 4,000, so its published scores are of another kind; chance is a
half in both.
"""

import csv
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from longlode.core.errors import InputError
from longlode.evaluate.adapters.base import Record, RecordTask

_TSV_COLUMNS = ("label", "id1", "id2", "text1", "text2")


def _first_word_right(record: Record, written: str) -> float:
    words = re.findall(r"\w+", written.lower())
    return float(words[:1] == [record.answers[0]])


class LRAText(RecordTask):
    """LRA's text classification: JSON lines of `text` and `label` (0 or 1), or IMDB's folder with `neg` and `pos`."""

    format = "lra_text"
    template = "Review: {context}\n\nIs this review negative or positive? It is"
    max_new_tokens = 4

    def raws(self) -> Iterable[Mapping[str, Any]]:
        """Records of the file, or of the folder: a negative and a positive review in turn, in the order of names."""
        if not self.path.is_dir():
            return super().raws()
        sides = [sorted((self.path / side).glob("*.txt")) for side in ("neg", "pos")]
        if not all(sides):
            raise InputError(
                f"{self.path} has no neg/*.txt and pos/*.txt; expected both, as in IMDB's folder."
            )
        pairs = zip(*sides, strict=False)
        return [
            {"text": path.read_text(encoding="utf-8"), "label": label}
            for pair in pairs
            for label, path in enumerate(pair)
        ]

    def parse(self, raw: Mapping[str, Any]) -> list[Record]:
        """One review."""
        return [Record(raw["text"], "", (("negative", "positive")[_label(raw)],))]

    def score(self, record: Record, written: str) -> float:
        """Return 1 where the first word is the right one."""
        return _first_word_right(record, written)


class LRARetrieval(RecordTask):
    """LRA's document retrieval, AAN: does one of two papers cite the other? Its TSV: label, two ids, two texts."""

    format = "lra_retrieval"
    template = "Two papers.\n\n{context}\n\nDoes one of these papers cite the other, yes or no? Answer:"
    max_new_tokens = 4

    def raws(self) -> Iterable[Mapping[str, Any]]:
        """Lines of the TSV file, which has no head."""
        if not self.path.is_file():
            raise InputError(
                f"{self.path} is not there; expected LRA's new_aan_pairs.test.tsv or one like it."
            )
        csv.field_size_limit(sys.maxsize)  # a field is a paper
        with self.path.open(encoding="utf-8", newline="") as stream:
            lines = csv.reader(stream, delimiter="\t")
            # A line that is too short then lacks a field, which the error names.
            return [dict(zip(_TSV_COLUMNS, fields, strict=False)) for fields in lines]

    def parse(self, raw: Mapping[str, Any]) -> list[Record]:
        """One pair."""
        context = f"First paper: {raw['text1']}\n\nSecond paper: {raw['text2']}"
        return [Record(context, "", (("no", "yes")[_label(raw)],))]

    def score(self, record: Record, written: str) -> float:
        """Return 1 where the first word is the right one."""
        return _first_word_right(record, written)


def _label(raw: Mapping[str, Any]) -> int:
    """Return the label, written as 1, "1" or "1.0". Raises: ValueError for another label."""
    label = float(raw["label"])
    if label not in (0, 1):
        raise ValueError(f"label {raw['label']!r}, expected 0 or 1")
    return int(label)
