"""Questions about biographies, after LongBioBench (arXiv 2506.02921): to find, to reason, to be trusted.

Find: one attribute (standard, paraphrase, pronoun), five at once. Reason: the difference of two ages, the order of
three, a value that is the same as another person's, two people whose ages differ by so much. Trust: the number of the
biography that says it, and "not stated" where none does.
"""

import random
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from longlode.evaluate.tasks.base import MAIN, Example, Metric, Scores
from longlode.evaluate.tasks.biographies import ATTRIBUTES, MAX_PEOPLE, Person, Style, people, shelf
from longlode.evaluate.tasks.generated import GeneratedTask, Question, answer_metrics

_NUM_ASKED = 5
NOT_STATED = "not stated"


class _Biographies(GeneratedTask):
    suites = ("biographies",)
    smallest = 6
    largest = MAX_PEOPLE

    def _placed(self, everyone: list[Person], person: Person, depth: float) -> int:
        """Move `person` to a depth of the list; return the place."""
        everyone.remove(person)
        place = round(depth * len(everyone))
        everyone.insert(place, person)
        return place


class BiographyStandard(_Biographies):
    """One attribute of one person."""

    name = "biography"
    about = "one attribute of one of many people, each with a biography of six sentences"
    style: ClassVar[Style] = "standard"

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` biographies; the asked one stands at its depth."""
        everyone = people(rng, size)
        person, attribute = everyone[0], rng.choice(ATTRIBUTES)
        self._placed(everyone, person, depth)
        ask = f"\nThe {attribute} of {person.name}:"
        meta = {"depth": depth, "num_people": size}
        return Question(shelf(everyone, rng, self.style), ask, (person.facts[attribute],), meta=meta)


class BiographyParaphrase(BiographyStandard):
    """The same, in several wordings."""

    name = "biography_paraphrase"
    about = "one attribute of one of many people, whose biographies differ in wording"
    style = "paraphrase"


class BiographyPronoun(BiographyStandard):
    """The same, in the first person."""

    name = "biography_pronoun"
    about = "one attribute of one of many people, who introduce themselves in the first person"
    style = "pronoun"


class BiographyMany(_Biographies):
    """Attributes of five people."""

    name = "biography_many"
    about = "an attribute of each of five people, all asked for at once"

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` biographies."""
        everyone = people(rng, size)
        asked = [(person, rng.choice(ATTRIBUTES)) for person in rng.sample(everyone, _NUM_ASKED)]
        questions = [f"\nThe {attribute} of {person.name}:" for person, attribute in asked]
        return Question(
            shelf(everyone, rng),
            questions[0],
            tuple(person.facts[attribute] for person, attribute in asked),
            tuple(f"{question} " for question in questions[1:]),
            {"depth": None, "num_people": size},
        )


class BiographyDifference(_Biographies):
    """The difference of two ages."""

    name = "biography_difference"
    about = "the difference between the ages of two people"
    metrics = answer_metrics(0.02)

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` biographies; the two ages differ."""
        everyone = people(rng, size, ages=True)
        one = everyone[0]
        other = rng.choice(
            [person for person in everyone if person.facts["age"] != one.facts["age"]] or everyone[1:]
        )
        rng.shuffle(everyone)
        gap = abs(int(one.facts["age"]) - int(other.facts["age"]))
        ask = f"\nYears between the ages of {one.name} and {other.name}:"
        return Question(shelf(everyone, rng), ask, (str(gap),), meta={"depth": None, "num_people": size})


class BiographyOrder(_Biographies):
    """Three people from the youngest to the oldest."""

    name = "biography_order"
    about = "three people in the order of their ages, the youngest first"
    metrics = answer_metrics(0.0)

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` biographies; the three ages differ."""
        while True:
            everyone = people(rng, size, ages=True)
            by_age = {person.facts["age"]: person for person in everyone}
            if len(by_age) >= 3:
                break
        asked = rng.sample([*by_age.values()], 3)
        named = ", ".join(person.name for person in asked)
        names = sorted(asked, key=lambda person: int(person.facts["age"]))
        ask = f"\nThe youngest first, {named} are:"
        return Question(
            shelf(everyone, rng),
            ask,
            (", ".join(person.name for person in names),),
            meta={"depth": None, "num_people": size},
        )


class BiographyHops(_Biographies):
    """A value that is said by another person's name, twice."""

    name = "biography_hops"
    about = "an attribute that one biography gives as the same as a second's, which gives it as the same as a third's"

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` biographies; three of them make the chain."""
        everyone = people(rng, size)
        attribute = rng.choice(ATTRIBUTES[1:])
        last = everyone[2]
        middle = everyone[1].like(last, attribute)
        first = everyone[0].like(middle, attribute)
        everyone = [first, middle, *everyone[2:]]
        rng.shuffle(everyone)
        ask = f"\nThe {attribute} of {first.name}:"
        meta = {"depth": None, "num_people": size}
        return Question(shelf(everyone, rng), ask, (last.facts[attribute],), meta=meta)


class BiographyPair(_Biographies):
    """Two people whose ages differ by a given number; any such pair is right, so the model has to write."""

    name = "biography_pair"
    about = "any two people whose ages differ by a given number of years, written by the model"
    always_writes: ClassVar[bool] = True
    stop = ("\n",)
    metrics = (
        Metric(
            "hard",
            "the two named people differ by that many years, the mean over samples",
            "share",
            "higher",
            words="right pairs",
            headline=True,
            chance=0.0,
        ),
        Metric("smooth", "log-probability of one right pair", "nats/token", "higher"),
    )

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` biographies; the number is one that a pair has."""
        everyone = people(rng, size, ages=True)
        one, other = rng.sample(everyone, 2)
        gap = abs(int(one.facts["age"]) - int(other.facts["age"]))
        ask = f"\nTwo people whose ages differ by {gap}:"
        meta = {"depth": None, "num_people": size, "gap": gap}
        return Question(shelf(everyone, rng), ask, (f"{one.name} and {other.name}",), meta=meta)

    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """One row: log-probability of one right pair; `judge` adds the rest."""
        return [{"smooth": -scores[MAIN][0].mean_nats}]

    def judge(self, example: Example, written: Sequence[str]) -> dict[str, Any]:
        """The first two people named in each text."""
        ages = {name: int(age) for name, age in re.findall(r"The age of (.+?) is (\d+)\.", example.prompt)}
        right = []
        for text in written:
            named = sorted((text.index(name), age) for name, age in ages.items() if name in text)[:2]
            right.append(len(named) == 2 and abs(named[0][1] - named[1][1]) == example.meta["gap"])
        return {"hard": sum(right) / len(right)}


class BiographyCited(_Biographies):
    """The numbers of the biographies that say something: L-CiteEval's question (arXiv 2410.02115) on generated text."""

    name = "biography_cited"
    about = "the numbers of the biographies that say three values; the model also writes them with the values"
    always_writes: ClassVar[bool] = True
    stop = ("\n",)
    metrics = (
        *answer_metrics(0.0, words="citations given in full"),
        Metric("citation_precision", "written citations that are right", "share", "higher"),
        Metric("citation_recall", "right citations that are written", "share", "higher"),
    )

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` numbered biographies; three people are asked for."""
        everyone = people(rng, size)
        asked = [(place, rng.choice(ATTRIBUTES)) for place in rng.sample(range(size), 3)]
        named = "; ".join(f"the {attribute} of {everyone[place].name}" for place, attribute in asked)
        values = [everyone[place].facts[attribute] for place, attribute in asked]
        numbers = rng.sample(range(1000, 10_000), size)
        text = shelf(everyone, rng, numbers=numbers)
        return Question(
            text,
            f"\nWith the number of the biography that says it: {named}.\nAnswers: {values[0]}",
            tuple(f"[{numbers[place]}]" for place, _ in asked),
            tuple(f"; {value} " for value in values[1:]),
            {"depth": None, "num_people": size},
        )

    def judge(self, example: Example, written: Sequence[str]) -> dict[str, Any]:
        """Precision and recall of the written citations, the mean over samples."""
        wanted = {example.text[start:stop] for start, stop in example.answer_spans}
        cited = [set(re.findall(r"\[\d+\]", text)) for text in written]
        precision = [len(one & wanted) / len(one) if one else 0.0 for one in cited]
        return {
            "citation_precision": sum(precision) / len(written),
            "citation_recall": sum(len(one & wanted) for one in cited) / len(wanted) / len(written),
        }


class BiographyAbsent(_Biographies):
    """A value, or that it is not stated, half of the time."""

    name = "biography_absent"
    about = "one attribute of a person, or that it is not stated, which is so in half of the questions"
    metrics = answer_metrics(0.25)

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` biographies; every one leaves an attribute out, so that an absence is nothing special."""
        everyone = [person.lacking(rng.choice(ATTRIBUTES)) for person in people(rng, size)]
        person = everyone[0]
        self._placed(everyone, person, depth)
        absent = rng.random() < 0.5
        (lacking,) = person.without
        attribute = lacking if absent else rng.choice([one for one in ATTRIBUTES if one != lacking])
        answer = NOT_STATED if absent else person.facts[attribute]
        ask = f'\nAnswer "{NOT_STATED}" where no biography says it. The {attribute} of {person.name}:'
        return Question(shelf(everyone, rng), ask, (answer,), meta={"depth": depth, "num_people": size})
