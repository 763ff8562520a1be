"""Evidence behind the gate's decision: how far each kind of measurement moves the log-odds, and the families in words.

A group of features is set to missing, which the gate reads as the mean of coherent text, and the text is judged again;
the difference is the evidence of the group. Above 0 it makes the text more like one in its order than usual text is,
below 0 less. The differences do not add up to the log-odds, since groups overlap in their information.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from longlode.mining.gate.model import Gate

GROUPS = {
    "boundaries": (("cut_",), "rare words shared by the passages on both sides of every cut"),
    "links": (("link_",), "words and names that stand on both sides of every cut"),
    "breaks": (("broken",), "paragraphs that begin in the middle of a sentence"),
    "likeness": (("alike",), "likeness of passages by how far apart they stand"),
    "alternation": (("division_", "changes_", "smooth_"), "two kinds of passages that alternate"),
    "style": (("style_",), "counts of the commonest words along the text"),
    "layout": (("signs_",), "punctuation and layout along the text"),
    "paragraphs": (("paragraph_",), "likeness of neighbouring paragraphs, and their lengths"),
    "direction": (
        ("direction_",),
        "the way passages follow on each other: questions before answers, introductions before mentions",
    ),
    "names": (("hazard_name", "hazard_other"), "distances at which names come back, beside other words"),
    "returns": (("hazard_",), "distances at which words come back"),
    "spans": (("span_", "names_"), "how much of the document lies between first and last use of a word"),
    "fluency": (("pairs_", "triples", "same_"), "neighbouring words that stand together again"),
    "lines": (
        ("line", "quotes"),
        "repeated lines, how their lengths vary, and lines that are rows of values",
    ),
    "vocabulary": (("",), "richness of the vocabulary; shares of numbers, letters, capitals and long words"),
}
"""Kinds of measurements: prefixes of the features' names, and their meaning; the first prefix that fits decides."""

FAMILIES = {
    "splice": "short pieces of many documents",
    "two-halves": "two documents, one after the other",
    "inserted": "one document with a stretch of another in its middle",
    "glued": "several documents, one after the other",
    "pages-of-one-project": "pages of one project, one after the other",
    "interleaved": "two documents, taken in turns",
    "three-interleaved": "three documents, taken in turns",
    "two-languages": "documents of two languages, taken in turns",
    "paragraphs-shuffled": "paragraphs of one document in random order",
    "own-pieces": "pieces of one document in random order",
    "lines-shuffled": "lines of one document in random order",
    "chat": "turns of a conversation in random order",
    "paragraphs-reversed": "paragraphs of one document, last first",
    "sentences-reversed": "sentences of one document, last first",
    "permuted": "words in random order",
    "markov": "words drawn one after the other from a table of pairs",
    "unigram": "words drawn by their frequency",
    "renamed": "one document whose names change on the way",
    "drifting": "words whose rare ones are replaced as the text goes on",
    "repeated": "one passage again and again, edited",
    "looped": "one passage again and again",
    "template": "one form, filled in again and again",
    "site": "pages with the same frame",
    "lists": "lists, tables, changelogs",
    "index": "an index",
    "links": "lists of links",
    "log": "a machine's log",
    "table": "a table of numbers",
    "csv": "comma-separated values",
    "json": "JSON records",
    "literals": "values dumped as code",
    "base64": "bytes written as base64",
    "hex": "bytes written in hexadecimal",
}
"""Families of negatives in words, by prefixes of their names; the longest prefix that fits decides."""


@dataclass(frozen=True)
class Sign:
    """Evidence of one group of measurements.

    name, about: of GROUPS. nats: the log-odds with it minus those without it; above 0 it favours one text. feature:
    the measurement of the group that moves them most by itself; value: its result, None where there is none.
    """

    name: str
    about: str
    nats: float
    feature: str
    value: float | None


def signs(gate: Gate, features: Mapping[str, float], num_tokens: float) -> list[Sign]:
    """Evidence of each group, the strongest first, for or against.

    Args: features, of `measure`; num_tokens, length of the text, tokens of 4 bytes.
    """
    whole = gate.judge_features(dict(features), num_tokens).log_odds

    def effect(names: list[str]) -> float:
        without = {name: np.nan if name in names else value for name, value in features.items()}
        return whole - gate.judge_features(without, num_tokens).log_odds

    members: dict[str, list[str]] = {}
    for feature in gate.names:
        members.setdefault(group_of(feature), []).append(feature)
    found = []
    for group, names in members.items():
        strongest = max(names, key=lambda name: abs(effect([name])))
        value = features[strongest]
        known = float(value) if np.isfinite(value) else None
        found.append(Sign(group, GROUPS[group][1], effect(names), strongest, known))
    return sorted(found, key=lambda sign: -abs(sign.nats))


def group_of(feature: str) -> str:
    """The key of GROUPS that a feature belongs to."""
    return next(
        name for name, (prefixes, _) in GROUPS.items() if any(feature.startswith(one) for one in prefixes)
    )


def about_family(family: str) -> str:
    """A family in words, or its name where FAMILIES has none."""
    fitting = [name for name in FAMILIES if family.startswith(name)]
    return FAMILIES[max(fitting, key=len)] if fitting else family
