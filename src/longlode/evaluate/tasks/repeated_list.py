"""Repeated list: surprisal of a list of nouns at its second occurrence, relative to the first.

After Armeni et al. (arXiv 2210.13569), with new wording: a list, filler, the list again. It needs only the loss: no
question has to be understood, so even the smallest models show whether they remember anything across the filler. Two
controls show what is remembered: the same nouns in another order (identity kept, order not), and other nouns (neither).
"""

import random
from typing import Any

from longlode.evaluate.tasks.base import MAIN, Example, Metric, Scores, Task, largest_count, too_short
from longlode.evaluate.tasks.words import NOUNS, filler_sentence

_INTRO = "Before the trip Mary wrote down this list of words: {words}.\n"
_AGAIN = "\nWhen she came back, Mary read the list once more, and it said: {words}."
_NUM_WORDS = 10


class RepeatedList(Task):
    """Surprisal of a list's second occurrence over that of its first: 1 is no memory, 0 is perfect memory."""

    name = "repeated_list"
    about = "a list of ten nouns comes again after filler"
    suites = ("basic", "recall")
    metrics = (
        Metric("hard", "examples whose list surprises less the second time", "share", "higher", "wilson"),
        Metric(
            "smooth",
            "surprisal of the second list over the first, same list",
            "ratio",
            "lower",
            words="surprisal of the list's second reading over its first",
            headline=True,
            baseline=1.0,
            at_baseline="no memory of the list is shown",
        ),
        Metric("ratio_permuted", "the same ratio, second list in another order", "ratio", ""),
        Metric("ratio_new", "the same ratio, second list of other nouns", "ratio", ""),
        Metric(
            "gain",
            "ratio of the list of other nouns minus that of the same list",
            "ratio",
            "higher",
            words="ratio for other nouns minus ratio for the same list",
            headline=True,
            baseline=0.0,
            at_baseline="no memory of these very nouns is shown",
        ),
    )

    def make(self, length: int, seed: int) -> Example:
        """Two lists with as much filler between them as fits into `length` tokens."""
        rng = random.Random(f"repeated_list {length} {seed}")
        words = rng.sample(NOUNS, 2 * _NUM_WORDS)
        first, other = words[:_NUM_WORDS], words[_NUM_WORDS:]
        permuted = _reordered(first, rng)
        sentences = [
            filler_sentence(rng) for _ in range(length // 4)
        ]  # a sentence takes more than four tokens
        longest = max((first, permuted, other), key=lambda words: len(self.encode(_list(words))))

        def prompt(num_sentences: int) -> str:
            return _INTRO.format(words=_list(first)) + " ".join(sentences[:num_sentences])

        def num_tokens(size: int) -> int:
            if size > len(sentences):
                return length + 1
            return len(self.encode(prompt(size) + _AGAIN.format(words=_list(longest))))

        size = largest_count(num_tokens, length)
        if size < 0:
            raise too_short(self.name, length, num_tokens(0))
        start = prompt(size)
        filler_tokens = len(self.encode(" ".join(sentences[:size]))) if size else 0
        meta = {"depth": None, "num_words": _NUM_WORDS, "filler_tokens": filler_tokens}
        controls = {
            "permuted": _example(start, first, permuted, meta),
            "new": _example(start, first, other, meta),
        }
        return _example(start, first, first, meta, controls)

    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """One row: the ratio of each condition; `hard` is 1 when the repeated list surprises less than at
        first.
        """
        ratio = _ratio(scores[MAIN])
        new = _ratio(scores["new"])
        return [
            {
                "hard": float(ratio < 1.0),
                "smooth": ratio,
                "ratio_permuted": _ratio(scores["permuted"]),
                "ratio_new": new,
                "gain": new - ratio,
            }
        ]


def _list(words: list[str]) -> str:
    return ", ".join(words)


def _reordered(words: list[str], rng: random.Random) -> list[str]:
    """Another order in which no word keeps its place."""
    shift = rng.randrange(1, len(words))
    order = words[:]
    rng.shuffle(order)
    place = {word: order[(index + shift) % len(order)] for index, word in enumerate(order)}
    return [place[word] for word in words]


def _spans(text: str, words: list[str], start: int) -> list[tuple[int, int]]:
    spans = []
    for word in words:
        start = text.index(word, start)
        spans.append((start, start + len(word)))
        start += len(word)
    return spans


def _example(
    prompt: str,
    first: list[str],
    second: list[str],
    meta: dict[str, Any],
    variants: dict[str, Example] | None = None,
) -> Example:
    """The spans of the first list's nouns, then those of the second's; commas and spaces are not scored."""
    target = _AGAIN.format(words=_list(second))
    text = prompt + target
    spans = _spans(text, first, text.index(_list(first))) + _spans(text, second, text.rindex(_list(second)))
    return Example(prompt, target, tuple(spans), meta, variants or {})


def _ratio(scores: Any) -> float:
    """Mean surprisal per noun in the second list over that in the first: a noun is one unit, however many tokens it
    has.
    """
    nats = [float(score.nats.sum()) for score in scores]
    half = len(nats) // 2
    return sum(nats[half:]) / sum(nats[:half])
