"""Tasks on excerpts of held-out documents: read by an oracle, balanced, with a control that leaves the answer out."""

import random
import re
from collections import Counter

import numpy as np
import pytest

from longlode.core.errors import ConfigError
from longlode.evaluate import TASKS
from longlode.evaluate.tasks import SpanScore, Tokens
from longlode.evaluate.tasks.excerpts import sentences

LENGTH = 900


def encode(text):
    """Words and signs as tokens."""
    spans = [found.span() for found in re.finditer(r"\w+|[^\w\s]", text)]
    return Tokens(list(range(len(spans))), spans)


def document(seed, num=400):
    rng = random.Random(seed)
    words = [f"w{rng.randrange(10**6)}" for _ in range(5000)]
    return "\n".join(" ".join(rng.choices(words, k=rng.randint(5, 18))) + "." for _ in range(num))


def bound(name):
    return TASKS.get(name)().bound_to(encode, [document(1), document(2), "no sentence " * 2000])


def score(nats, hits=True):
    return [SpanScore(np.arange(1), np.array([nats]), np.array([hits]))]


def test_an_oracle_finds_the_order_and_the_settings_are_those_of_sort():
    task = bound("segment_order")
    seen, bins = Counter(), Counter()
    for seed in range(40):
        example = task.make(LENGTH, seed)
        text, question = example.prompt.removeprefix("A text:\n").split("\n\n")
        a, b = re.findall(r"^Segment [AB]: (.*)$", question, re.MULTILINE)
        assert len(a.split()) == len(b.split()) == 20
        answer = example.target.strip()
        assert answer == ("A" if text.index(a) < text.index(b) else "B")
        for one in (a, b):
            assert text.startswith(one) or f". {one}" in text
        distance = abs(len(text[: text.index(a)].split()) - len(text[: text.index(b)].split()))
        assert distance == example.meta["distance"] >= 20
        seen[answer] += 1
        edges = np.array([0, 1 / 4, 1 / 3, 1 / 2, 1 / 1.25]) * len(text.split())
        bins[int(np.searchsorted(edges, distance, side="right")) - 1] += 1
        assert example.variants["no_context"].prompt == question
        assert {example.variants["wrong"].target.strip(), answer} == {"A", "B"}
        assert 0.85 * LENGTH < len(encode(example.text)) <= LENGTH
    assert seen == {"A": 20, "B": 20}
    assert bins == {0: 10, 1: 10, 2: 10, 3: 10}


def test_a_guess_of_the_order_scores_its_chance():
    task = bound("segment_order")
    hits = []
    for seed in range(40):
        example = task.make(LENGTH, seed)
        nats = {"A": 0.1, "B": 2.0}  # says A whatever it reads
        scores = {name: score(nats[side.target.strip()]) for name, side in example.conditions().items()}
        (row,) = task.rows(example, scores)
        hits.append(row["hard"])
        assert row["gain"] == pytest.approx(0.0)
    chance = next(metric.chance for metric in task.metrics if metric.name == "hard")
    assert np.mean(hits) == chance == 0.5


def test_order_is_scored_by_the_odds_of_both_answers():
    task = bound("segment_order")
    sides = {"": score(1.0), "wrong": score(3.0), "no_context": score(2.0), "wrong_control": score(2.0)}
    (row,) = task.rows(task.make(LENGTH, 0), sides)
    right = np.exp(-1.0) / (np.exp(-1.0) + np.exp(-3.0))
    assert row["hard"] == 1.0
    assert row["smooth"] == pytest.approx(np.log(right))
    assert row["gain"] == pytest.approx(np.log(right) - np.log(0.5))


def test_the_first_sentence_is_in_the_text_and_not_in_the_control():
    task = bound("first_sentence")
    for seed in range(12):
        example = task.make(LENGTH, seed)
        answer, control = example.target.strip(), example.variants["no_context"]
        assert example.prompt.startswith(f"A text:\n{answer} ")
        assert answer.endswith(".")
        assert answer not in control.prompt
        assert control.target == example.target
        (start, stop), (left, right) = example.answer_spans[0], control.answer_spans[0]
        assert example.text[start:stop] == control.text[left:right] == answer
        assert 0.85 * LENGTH < len(encode(example.text)) <= LENGTH
    (row,) = task.rows(example, {"": score(0.5), "no_context": score(4.0, False)})
    assert (row["hard"], row["hard_control"], row["gain"]) == (1.0, 0.0, 3.5)


@pytest.mark.parametrize("name", ["segment_order", "first_sentence"])
def test_windows_without_sentences_are_left_out(name):
    task = bound(name)
    assert {task.make(LENGTH, seed).meta["text"] for seed in range(task.num_available(LENGTH, 50))} == {0, 1}
    assert task.num_available(12, 5) == 0
    empty = TASKS.get(name)().bound_to(encode, ["no sentence " * 2000])
    assert empty.num_available(LENGTH, 5) == 0
    with pytest.raises(ConfigError, match="prose"):
        empty.make(LENGTH, 0)


def test_sentences_end_with_a_mark_and_space():
    assert sentences('It is 3.5 m.  "Yes?" he\nsaid! And') == ["It is 3.5 m.", '"Yes?"', "he said!"]


def test_sorted_segments_make_the_text_and_every_order_comes():
    task = bound("text_sorting")
    orders = Counter()
    for seed in range(48):
        example = task.make(LENGTH, seed)
        before, *lines, after, _ = example.prompt.split("\n")
        segments = dict(re.match(r"Segment (\d): (.*)", line).groups() for line in lines)
        order = example.target.split()
        text = " ".join([before.removeprefix("Before: "), *(segments[one] for one in order), after[7:]])
        whole = " ".join(task.texts[example.meta["text"]].split())
        assert text in whole
        orders[tuple(order)] += 1
        assert len(encode(example.text)) <= LENGTH
    assert set(orders.values()) == {2}
    assert len(orders) == 24


def test_bits_are_those_of_the_second_half_per_character():
    task = bound("bits_per_character")
    example = task.make(LENGTH, 0)
    ((start, stop),) = example.answer_spans
    assert example.text[start:stop] == example.target == example.target.strip()
    assert example.text in task.texts[example.meta["text"]] + " "
    assert len(encode(example.target)) == LENGTH // 2
    (row,) = task.rows(example, {"": [SpanScore(np.arange(3), np.array([1.0, 2.0, 3.0]), np.ones(3, bool))]})
    assert row["bits"] == pytest.approx(6 / np.log(2) / (stop - start))
