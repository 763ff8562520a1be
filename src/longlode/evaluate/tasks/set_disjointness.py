"""Set disjointness (arXiv 2407.05483): have two sets a word in common, the small one first or the large one first.

A model with a state of fixed size can keep the small set and look through the large one; the other way round it must
keep the large one. The difference between the two orders is what reading twice (`repeat`) gains.
"""

import random
from typing import ClassVar

from longlode.evaluate.tasks.generated import GeneratedTask, Question
from longlode.evaluate.tasks.words import distinct_words

NUM_SMALL = 4


class _Disjointness(GeneratedTask):
    suites = ("reasoning",)
    choices = ("no", "yes")
    smallest = NUM_SMALL + 1
    largest = 29_000
    small_first: ClassVar[bool]

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """A set of four words and one of `size`; half of the pairs share one word."""
        words = distinct_words(rng, NUM_SMALL + size)
        small, large = words[:NUM_SMALL], words[NUM_SMALL:]
        shared = rng.random() < 0.5
        if shared:
            large[rng.randrange(size)] = rng.choice(small)
        sets = [small, large] if self.small_first else [large, small]
        context = "".join(f"Set {name}: {', '.join(one)}.\n" for name, one in zip("AB", sets, strict=True))
        meta = {"depth": None, "num_words": size}
        return Question(context, "Is a word in both sets? The answer is", (self.choices[shared],), meta=meta)


class SmallSetFirst(_Disjointness):
    """The small set first."""

    name = "disjoint_small_first"
    about = "whether two sets of words share one, the small set first"
    small_first = True


class LargeSetFirst(_Disjointness):
    """The large set first."""

    name = "disjoint_large_first"
    about = "whether two sets of words share one, the large set first"
    small_first = False
