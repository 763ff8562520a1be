"""Phonebook (arXiv 2402.01032): names and numbers, a worked look-up, and one name again."""

import random

from longlode.evaluate.tasks.generated import GeneratedTask, Question
from longlode.evaluate.tasks.people import full_names


class Phonebook(GeneratedTask):
    """The number of one name of a phone book."""

    name = "phonebook"
    about = "the seven digits of one name of a phone book, after a worked look-up of another"
    suites = ("recall",)
    smallest = 2
    largest = 2500

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` lines; the asked one stands at its depth."""
        names = full_names(rng, size)
        numbers = [f"{rng.randrange(100, 1000)}-{rng.randrange(1000, 10000)}" for _ in names]
        asked = round(depth * (size - 1))
        shown = rng.choice([place for place in range(size) if place != asked])
        context = "".join(f"{name}: {number}\n" for name, number in zip(names, numbers, strict=True))
        ask = f"\nLooked up: {names[shown]}: {numbers[shown]}\nLooked up: {names[asked]}:"
        return Question(context, ask, (numbers[asked],), meta={"depth": depth, "num_lines": size})
