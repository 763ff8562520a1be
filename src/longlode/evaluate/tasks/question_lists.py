"""Many questions in one prompt, many answers in one output, in the form of LongGenBench (arXiv 2410.04199).

LongGenBench joins questions of GSM8K, MMLU and CommonsenseQA; here they are sums about invented people, so that nothing
has to be downloaded and nothing was trained on.
"""

import random

from longlode.evaluate.tasks.generated import GeneratedTask, Question, answer_metrics
from longlode.evaluate.tasks.people import FIRST_NAMES

_MOST = 20
_THINGS = (
    "apples",
    "books",
    "boxes",
    "coins",
    "cups",
    "eggs",
    "keys",
    "lamps",
    "pears",
    "ropes",
    "spoons",
    "tickets",
)


class QuestionList(GeneratedTask):
    """Answers to all questions of a list, in order."""

    name = "question_list"
    about = "the answers to a list of numbered sums in words, all in one output"
    suites = ("reasoning",)
    metrics = answer_metrics(0.04)
    smallest = 2

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` questions of two numbers."""
        lines, answers = [], []
        for number in range(1, size + 1):
            name, thing = rng.choice(FIRST_NAMES), rng.choice(_THINGS)
            first, second = rng.randint(2, _MOST), rng.randint(2, _MOST)
            more = rng.random() < 0.5 or first <= second
            verb = "gets" if more else "loses"
            lines.append(
                f"Question {number}: {name} has {first} {thing} and {verb} {second}. How many now?\n"
            )
            answers.append(str(first + second if more else first - second))
        return Question(
            "".join(lines),
            "Answer 1:",
            tuple(answers),
            tuple(f"\nAnswer {number}: " for number in range(2, size + 1)),
            {"depth": None, "num_questions": size},
        )
