"""The words that come most often: RULER's common words (a list) and frequent words (a coded text).

Common words: ten words 30 times each among words that come 3 times (6 and 1 below 4,096 tokens), one worked example.
Frequent words: made words of six letters whose counts fall with the square of the rank; the commonest is written as
dots and the next three are asked for. Both need counting over the whole text, which retrieval does not give.
"""

import random
import string

from longlode.evaluate.tasks.generated import GeneratedTask, Question
from longlode.evaluate.tasks.words import distinct_words

NUM_COMMON = 10
_MANY_WORDS = 1200  # from here on the counts of long contexts; such a list takes about 4,096 tokens
_ASK = "\nThe {num} words that come most often in this list, in alphabetical order, are:"
_CODED = "\nThe three words that come most often in this coded text, dots left out, most often first, are:"
_EXPONENT = 2.0
_RARE_PER_WORD = 50  # words of text per word of the vocabulary


class CommonWords(GeneratedTask):
    """The ten words of a numbered list that come most often."""

    name = "common_words"
    about = "the ten most common words of a long list"
    suites = ("reasoning",)
    smallest = 10
    largest = 29_000

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` different rare words besides the ten."""
        many = 30 * NUM_COMMON + 3 * size >= _MANY_WORDS
        often, rarely = (30, 3) if many else (6, 1)
        shown, ask, words = self._one(10, 3, 1, rng)
        text, ask, wanted = self._one(size, often, rarely, rng)
        example = shown + ask + " " + ", ".join(words) + ".\n\n"
        meta = {"depth": None, "num_words": NUM_COMMON * often + size * rarely}
        return Question(example + text, ask, wanted, meta=meta)

    def _one(
        self, num_rare: int, often: int, rarely: int, rng: random.Random
    ) -> tuple[str, str, tuple[str, ...]]:
        words = distinct_words(rng, NUM_COMMON + num_rare)
        common, rare = words[:NUM_COMMON], words[NUM_COMMON:]
        listed = common * often + rare * rarely
        rng.shuffle(listed)
        text = "A list of words: " + " ".join(f"{n}. {word}" for n, word in enumerate(listed, 1))
        return text, _ASK.format(num=NUM_COMMON), tuple(sorted(common))


class FrequentWords(GeneratedTask):
    """The second to fourth most frequent words of a coded text."""

    name = "frequent_words"
    about = "the three most frequent words of a coded text"
    suites = ("reasoning",)
    smallest = 60

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """About `size` words, `size / 50` different ones and eight at least."""
        num = max(8, size // _RARE_PER_WORD)
        counts = zeta_counts(size, num)
        words: list[str] = []
        while len(words) < num - 1:
            word = "".join(rng.choices(string.ascii_lowercase, k=6))
            if word not in words:
                words.append(word)
        listed = [word for word, count in zip(["...", *words], counts, strict=True) for _ in range(count)]
        rng.shuffle(listed)
        text = "A coded text: " + " ".join(listed) + "."
        return Question(text, _CODED, tuple(words[:3]), meta={"depth": None, "num_words": len(listed)})


def zeta_counts(total: int, num: int) -> list[int]:
    """Counts of `num` words, about `total` in all, that fall with the square of the rank; the first five differ."""
    weight = sum(rank**-_EXPONENT for rank in range(1, num + 1))
    counts = [max(1, round(total * rank**-_EXPONENT / weight)) for rank in range(1, num + 1)]
    for rank in range(3, -1, -1):  # short texts round ranks together
        counts[rank] = max(counts[rank], counts[rank + 1] + 1)
    return counts
