"""Classification in context with many labels, in the form of LongICLBench (arXiv 2404.02060): messages and labels.

LongICLBench's data sets have 6 to 174 labels. Here a label is a made-up word, and each message says one of six words
that its label stands for, so a label is known only from the examples.
"""

import random

from longlode.evaluate.tasks.generated import GeneratedTask, Question, answer_metrics
from longlode.evaluate.tasks.words import NOUNS, filler_sentence

NUM_LABELS = 24
WORDS_PER_LABEL = 6
NUM_ASKED = 4
_SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "zo")


class ManyLabels(GeneratedTask):
    """The labels of four messages, from labelled examples."""

    name = "many_labels"
    about = "the labels of four messages, of 24 labels that only the examples before explain"
    suites = ("reasoning",)
    metrics = answer_metrics(0.0, words="labels given in full")
    smallest = NUM_ASKED

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` labelled messages; each word that is asked for stands in one of them at least."""
        labels: list[str] = []
        while len(labels) < NUM_LABELS:
            label = "".join(rng.choices(_SYLLABLES, k=3))
            if label not in labels:
                labels.append(label)
        words = rng.sample(NOUNS, NUM_LABELS * WORDS_PER_LABEL)
        label_of = {word: labels[number // WORDS_PER_LABEL] for number, word in enumerate(words)}
        asked = rng.sample(words, NUM_ASKED)
        shown = [*asked, *rng.choices(words, k=size - NUM_ASKED)]
        rng.shuffle(shown)
        context = "".join(f"{_message(word, rng)} -> {label_of[word]}\n" for word in shown)
        asks = [f"{_message(word, rng)} ->" for word in asked]
        return Question(
            context,
            asks[0],
            tuple(label_of[word] for word in asked),
            tuple(f"\n{ask} " for ask in asks[1:]),
            {"depth": None, "num_shown": size},
        )


def _message(word: str, rng: random.Random) -> str:
    before, after = filler_sentence(rng), filler_sentence(rng)
    return f"{before} It was about the {word}. {after}"
