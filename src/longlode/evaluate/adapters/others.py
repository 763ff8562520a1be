"""L-Eval, LooGLE, HELMET, BABILong and Book-SORT, each from its own record format."""

import ast
from collections.abc import Mapping
from typing import Any, ClassVar

from longlode.evaluate.adapters import scorers
from longlode.evaluate.adapters.base import Record, RecordTask


class LEval(RecordTask):
    """L-Eval (arXiv 2307.11088): `input` (the document), `instructions`, `outputs`, `evaluation`.

    Scores: letters for `exam`, ROUGE-L for `rouge`, F1 for every other (`f1`; the judged ones, `LLM` and `human`, too).
    """

    format = "leval"
    template = "{context}\n\nInstruction: {question}\nAnswer:"
    max_new_tokens = 128

    def parse(self, raw: Mapping[str, Any]) -> list[Record]:
        """A question per instruction."""
        pairs = zip(raw["instructions"], raw["outputs"], strict=True)
        extra = {"evaluation": str(raw["evaluation"])}
        return [Record(raw["input"], question, (str(answer),), extra) for question, answer in pairs]

    def score(self, record: Record, written: str) -> float:
        """By the record's kind of evaluation."""
        score = {"exam": scorers.choice, "rouge": scorers.rouge_l}.get(record.extra["evaluation"], scorers.f1)
        return score(written, record.answers[0])


class LooGLE(RecordTask):
    """LooGLE (arXiv 2311.04939): `context`, `question`, `answer`, or `input` with `qa_pairs` of Q and A.

    Scored by ROUGE-L. Its other automatic scores need models or word lists of other packages.
    """

    format = "loogle"
    max_new_tokens = 128

    def parse(self, raw: Mapping[str, Any]) -> list[Record]:
        """One question, or a question per pair."""
        if "question" in raw:
            return [Record(raw["context"], raw["question"], (str(raw["answer"]),))]
        pairs = raw["qa_pairs"]
        pairs = ast.literal_eval(pairs) if isinstance(pairs, str) else pairs
        return [Record(raw["input"], pair["Q"], (str(pair["A"]),)) for pair in pairs]

    def score(self, record: Record, written: str) -> float:
        """ROUGE-L."""
        return scorers.rouge_l(written, record.answers[0])


class Helmet(RecordTask):
    """HELMET (arXiv 2410.02694): `context`, `question`, `answer` (one or several), scored by substring match.

    That is its rule for recall and retrieval-augmented answering; its citation and summary scores need judges.
    """

    format = "helmet"
    template = "{context}\n\nQuestion: {question}\nAnswer:"

    def parse(self, raw: Mapping[str, Any]) -> list[Record]:
        """One question."""
        answer = raw["answer"]
        answers = tuple(str(one) for one in answer) if isinstance(answer, list) else (str(answer),)
        return [Record(raw["context"], raw["question"], answers)]

    def score(self, record: Record, written: str) -> float:
        """Return 1 where one of the answers stands in the text."""
        return max(scorers.contains(written, answer) for answer in record.answers)


class BABILong(RecordTask):
    """BABILong (arXiv 2406.10149): `input` (facts among prose), `question`, `target`; the target has to come alone."""

    format = "babilong"
    template = "<context>\n{context}\n</context>\n\nQuestion: {question}\nAnswer:"
    max_new_tokens = 16
    PLACES: ClassVar[tuple[str, ...]] = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")

    def parse(self, raw: Mapping[str, Any]) -> list[Record]:
        """One question."""
        return [Record(raw["input"], raw["question"], (str(raw["target"]),))]

    def score(self, record: Record, written: str) -> float:
        """The target and no other answer of the file; the places of tasks 1 to 4 are always among these."""
        labels = {*self.PLACES, *(one.answers[0] for one in self.records)}
        return scorers.only_label(written, record.answers[0], sorted(labels), record.question)


class BookSort(RecordTask):
    """Book-SORT (arXiv 2410.08133): `excerpt`, `segment_1`, `segment_2`, `present_seg1_first`.

    The published tables have the place of an excerpt in a book instead of its text; join the text as `excerpt`.
    Segment 1 is always the one that comes first in the book; the answer is the letter under which it is shown.
    """

    format = "booksort"
    template = (
        "A text:\n{context}\n\nTwo segments of it:\n{question}\n"
        "Which segment comes first in the text?\nAnswer: Segment"
    )
    max_new_tokens = 4

    def parse(self, raw: Mapping[str, Any]) -> list[Record]:
        """One question."""
        shown_first = bool(raw["present_seg1_first"])
        pair = (raw["segment_1"], raw["segment_2"])
        first, second = pair if shown_first else pair[::-1]
        question = f"Segment A: {first}\nSegment B: {second}"
        return [Record(raw["excerpt"], question, ("A" if shown_first else "B",))]

    def score(self, record: Record, written: str) -> float:
        """Return 1 where the text begins with the right letter."""
        return float(written.strip().startswith(record.answers[0]))
