"""LongBench (arXiv 2308.14508): records with `input`, `context`, `answers`, `dataset` and `all_classes`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from longlode.evaluate.adapters import scorers
from longlode.evaluate.adapters.base import Record, RecordTask

_SCORES = {
    **dict.fromkeys(
        ["hotpotqa", "2wikimqa", "musique", "narrativeqa", "qasper", "multifieldqa_en", "nq", "triviaqa"],
        scorers.f1,
    ),
    **dict.fromkeys(["gov_report", "qmsum", "multi_news", "samsum"], scorers.rouge_l),
    **dict.fromkeys(["passage_retrieval_en", "passage_retrieval_zh", "passage_count"], scorers.right_number),
    **dict.fromkeys(["lcc", "repobench-p"], scorers.code_similarity),
}
_CLASSES = ("trec", "lsht")


class LongBench(RecordTask):
    """A file of LongBench; the data set named in its records decides the score.

    The published prompts differ by data set: pass one as `template`, with {context} and {question} for LongBench's
    {input}. Chinese summaries and questions (dureader, multifieldqa_zh, vcsum) need a word segmenter and are refused.
    """

    format = "longbench"
    max_new_tokens = 64
    stop: ClassVar[tuple[str, ...]] = ()

    def parse(self, raw: Mapping[str, Any]) -> list[Record]:
        """One question; `_e` at the end of the data set's name (LongBench-E) changes nothing."""
        name = str(raw["dataset"]).removesuffix("_e")
        if name not in _SCORES and name not in _CLASSES:
            known = ", ".join(sorted([*_SCORES, *_CLASSES]))
            raise ValueError(f"there is no score for the data set {name!r}, only for {known}")
        answers = tuple(str(one) for one in raw["answers"])
        extra = {"dataset": name, "classes": tuple(raw.get("all_classes") or ())}
        return [Record(raw["context"], raw["input"], answers, extra)]

    def score(self, record: Record, written: str) -> float:
        """The best score over the right answers."""
        name = record.extra["dataset"]
        text = (
            written.lstrip("\n").split("\n")[0] if name in ("trec", "triviaqa", "samsum", "lsht") else written
        )
        if name in _CLASSES:
            return max(scorers.one_class(text, answer, record.extra["classes"]) for answer in record.answers)
        return max(_SCORES[name](text, answer) for answer in record.answers)
