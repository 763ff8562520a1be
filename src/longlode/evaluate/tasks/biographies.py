"""Invented biographies, the text of the tasks in `biography_questions.py`, after LongBioBench (arXiv 2506.02921).

Six attributes per person, one sentence each, in one wording, in several (paraphrase), or in the first person
(pronoun). The names, places and wordings are our own.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from longlode.evaluate.tasks.people import full_names, place_names

Style = Literal["standard", "paraphrase", "pronoun"]
MAX_PEOPLE = 2_000  # there are 5,000 names and more

_MONTHS = """
January February March April May June July August September October November December
"""
_HOBBIES = """
archery baking birdwatching bookbinding calligraphy caving chess climbing cycling dancing fencing fishing
gardening juggling kayaking knitting origami painting photography pottery puppetry quilting rowing running
sailing singing skating sketching stargazing surfing swimming weaving woodcarving yoga
"""
_MAJORS = """
accounting anatomy archaeology architecture astronomy biology botany chemistry dentistry design economics
forestry geography geology history journalism law linguistics literature mathematics medicine music nursing
optics pharmacy philosophy physics sociology statistics theology zoology
"""
MONTHS, HOBBIES, MAJORS = (tuple(one.split()) for one in (_MONTHS, _HOBBIES, _MAJORS))

ATTRIBUTES = ("birth date", "birthplace", "hobby", "university", "major", "work city")
WORDINGS: Mapping[str, tuple[str, ...]] = {
    "birth date": (
        "The birth date of {who} is {what}.",
        "{who} came into the world on {what}.",
        "On {what}, {who} was born.",
    ),
    "age": ("The age of {who} is {what}.", "{who} is {what} years old."),
    "birthplace": (
        "The birthplace of {who} is {what}.",
        "{who} was born in {what}.",
        "The first home of {who} was in {what}.",
    ),
    "hobby": (
        "The hobby of {who} is {what}.",
        "{who} likes {what} most.",
        "For {who}, a free hour means {what}.",
    ),
    "university": (
        "The university of {who} was {what}.",
        "{who} studied at {what}.",
        "The degree of {who} is from {what}.",
    ),
    "major": (
        "The major of {who} was {what}.",
        "{who} took a degree in {what}.",
        "The subject of {who} was {what}.",
    ),
    "work city": (
        "The work city of {who} is {what}.",
        "{who} works in {what}.",
        "The office of {who} stands in {what}.",
    ),
}
_FIRST_PERSON: Mapping[str, str] = {
    "birth date": "My birth date is {what}.",
    "age": "My age is {what}.",
    "birthplace": "My birthplace is {what}.",
    "hobby": "My hobby is {what}.",
    "university": "My university was {what}.",
    "major": "My major was {what}.",
    "work city": "My work city is {what}.",
}


@dataclass(frozen=True)
class Person:
    """A person: `facts` has a value for each attribute; `without`: attributes that the biography leaves out."""

    name: str
    facts: Mapping[str, str]
    without: frozenset[str] = frozenset()
    same_as: Mapping[str, str] = field(default_factory=dict)
    """Attribute -> name of the person who has the same value, which the biography says instead of the value."""

    def lacking(self, attribute: str) -> "Person":
        """The same person with a biography that leaves `attribute` out."""
        return replace(self, without=self.without | {attribute})

    def like(self, other: "Person", attribute: str) -> "Person":
        """The same person with the other's value of `attribute`, which the biography says by the other's name."""
        facts = {**self.facts, attribute: other.facts[attribute]}
        return replace(self, facts=facts, same_as={**self.same_as, attribute: other.name})


def people(rng: random.Random, num: int, *, ages: bool = False) -> list[Person]:
    """So many people, at most `MAX_PEOPLE`. Args: ages, an age instead of a birth date."""
    places = place_names(rng, 2 * min(num, 60) + 10)
    found = []
    for name in full_names(rng, num):
        born = f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(1950, 2001)}"
        facts = {
            **({"age": str(rng.randint(20, 90))} if ages else {"birth date": born}),
            "birthplace": rng.choice(places),
            "hobby": rng.choice(HOBBIES),
            "university": f"the University of {rng.choice(places)}",
            "major": rng.choice(MAJORS),
            "work city": rng.choice(places),
        }
        found.append(Person(name, facts))
    return found


def biography(person: Person, rng: random.Random, style: Style) -> str:
    """The biography of a person, in one line."""
    kind = "self-introduction" if style == "pronoun" else "biography"
    said = [f"Here is the {kind} of {person.name}."]
    for attribute, value in person.facts.items():
        if attribute in person.without:
            continue
        if attribute in person.same_as:
            said.append(
                f"The {attribute} of {person.name} is the same as that of {person.same_as[attribute]}."
            )
        elif style == "pronoun":
            said.append(_FIRST_PERSON[attribute].format(what=value))
        else:
            wordings = WORDINGS[attribute] if style == "paraphrase" else WORDINGS[attribute][:1]
            sentence = rng.choice(wordings).format(who=person.name, what=value)
            said.append(sentence)
    return " ".join(said)


def shelf(
    everyone: Sequence[Person], rng: random.Random, style: Style = "standard", numbers: Sequence[int] = ()
) -> str:
    """All biographies, a line each. Args: numbers, one per person, which stands before each in brackets."""
    lines = [biography(person, rng, style) for person in everyone]
    if numbers:
        lines = [f"[{number}] {line}" for number, line in zip(numbers, lines, strict=True)]
    return "".join(f"{line}\n" for line in lines)
