"""Scores of written answers, as published benchmarks define them, each 0 to 1 for a text and one right answer.

ROUGE-L is the F1 of the longest common subsequence of words of the whole texts; LongBench's package takes it by
sentence, which differs a little on summaries of several sentences.
"""

import difflib
import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and doubled white space (SQuAD's rule)."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def f1(written: str, answer: str) -> float:
    """F1 of the bags of normalised words."""
    return _f1(normalised(written).split(), normalised(answer).split())


def _f1(got: Sequence[str], wanted: Sequence[str]) -> float:
    same = sum((Counter(got) & Counter(wanted)).values())
    return 2 * same / (len(got) + len(wanted)) if same else 0.0


def rouge_l(written: str, answer: str) -> float:
    """F1 of the longest common subsequence of words."""
    got, wanted = written.split(), answer.split()
    lengths = [0] * (
        len(wanted) + 1
    )  # lengths[j]: of the subsequence common to the words so far and wanted[:j]
    for word in got:
        diagonal = 0
        for j, other in enumerate(wanted, 1):
            above = lengths[j]
            lengths[j] = diagonal + 1 if word == other else max(above, lengths[j - 1])
            diagonal = above
    return 2 * lengths[-1] / (len(got) + len(wanted)) if lengths[-1] else 0.0


def exact(written: str, answer: str) -> float:
    """Return 1 where the normalised texts are the same."""
    return float(normalised(written) == normalised(answer))


def contains(written: str, answer: str) -> float:
    """Return 1 where the normalised answer stands in the normalised text (HELMET's substring match)."""
    return float(normalised(answer) in normalised(written))


def choice(written: str, answer: str) -> float:
    """Return 1 where the letters A to D that the text begins with are those of the answer (L-Eval's exam)."""
    found = re.search(r"\b[A-D](?:[,\s]*[A-D])*\b", written)
    return float(
        found is not None and set(re.findall("[A-D]", found.group())) == set(re.findall("[A-D]", answer))
    )


def right_number(written: str, answer: str) -> float:
    """Share of the numbers in the text that are the answer's first number (LongBench's counting and retrieval)."""
    wanted = re.search(r"\d+", answer)
    numbers = re.findall(r"\d+", written)
    return numbers.count(wanted.group()) / len(numbers) if wanted and numbers else 0.0


def code_similarity(written: str, answer: str) -> float:
    """Similarity of the first line of code with the answer, by difflib (LongBench's package counts edits instead)."""
    lines = written.lstrip("\n").split("\n")
    line = next((one for one in lines if not any(mark in one for mark in ("`", "#", "//"))), "")
    return difflib.SequenceMatcher(None, line, answer).ratio()


def one_class(written: str, answer: str, classes: Sequence[str]) -> float:
    """Return 1 / number of the classes named in the text, if the answer is among them (LongBench's classification)."""
    named = [one for one in classes if one in written]
    named = [one for one in named if one == answer or one not in answer]
    return 1 / len(named) if answer in named else 0.0


def only_label(written: str, answer: str, labels: Sequence[str], question: str) -> float:
    """Return 1 where the first sentence names the answer and no other label but those of the question (BABILong)."""
    first = written.lower().split(".")[0].split("<context>")[0].split("<example>")[0]
    asked = question.lower()
    named = {label for label in (one.lower() for one in labels) if label in first and label not in asked}
    return float(named == {answer.lower()})
