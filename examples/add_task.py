"""Add an evaluation task of your own: is the name of a person known again after filler?

Asked twice, with and without the sentence that says the name, so that the difference shows what the model took from it.
From the command line: `longlode evaluate MODEL -o eval --tasks my_module:NameAgain`.
"""

import random
from typing import Any

import longlode
from longlode.evaluate import Example, Metric, Task
from longlode.evaluate.tasks import TASKS, Scores

NAMES = ("Alice", "Boris", "Clara", "David", "Emma", "Felix")
FILLER = "The road went on through the fields and nobody spoke. "
QUESTION = "At the door somebody called the visitor by name:"


@TASKS.register
class NameAgain(Task):
    """Log-probability of a name that was said before, with and without the sentence that says it."""

    name = "name_again"
    about = "a name that was said at the beginning is wanted at the end"
    metrics = (
        Metric("hard", "greedy decoding writes the name", "share", "higher", "wilson"),
        Metric("smooth", "log-probability of the name", "nats/token", "higher"),
        Metric(
            "gain",
            "log-probability of the name gained from the sentence that says it",
            "nats/token",
            "higher",
            headline=True,
            baseline=0.0,
            at_baseline="no use of that sentence is shown",
        ),
    )

    def make(self, length: int, seed: int) -> Example:
        """Fill up to `length` tokens between the sentence and the question."""
        name = random.Random(f"name_again {length} {seed}").choice(NAMES)
        said = f"The visitor's name was {name}. "
        fixed = len(self.encode(said + QUESTION + f" {name}"))
        filler = FILLER * max(0, (length - fixed) // len(self.encode(FILLER)))
        plain = self.question(filler, name, {})
        return self.question(said + filler, name, {"without": plain})

    def question(self, text: str, name: str, variants: dict[str, Example]) -> Example:
        """Put the question after a text; the answer is the name, with the blank before it."""
        prompt, target = text + QUESTION, f" {name}"
        return Example(prompt, target, ((len(prompt), len(prompt) + len(target)),), {"depth": 0.0}, variants)

    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """Make the one row of an example; the main text has the name ""."""
        (answer,), (without,) = scores[""], scores["without"]
        return [
            {
                "hard": float(answer.greedy_exact),
                "smooth": -answer.mean_nats,
                "gain": without.mean_nats - answer.mean_nats,
            }
        ]


if __name__ == "__main__":
    longlode.evaluate("starter", "eval", tasks=["name_again"], lengths=[128], num_examples=8)
    rows = longlode.read_result("eval").table().to_pylist()
    print(
        f"gain from the name: {sum(row['gain'] for row in rows) / len(rows):.2f} nats per token, {len(rows)} examples"
    )
