"""LEGO: the answer follows from the clauses, and skills are as deep as they say."""

import random

import pytest

from longlode.synthetic.lego import lego


def solve(question):
    """Look up a variable in the text; return its value and the number of clauses that were needed."""
    clauses, _, name = question.rpartition(" ?")
    known = dict(clause.split("=") for clause in clauses.split())
    value, steps = known[name], 1
    negated = 0
    while not value.isdigit():
        negated ^= value.startswith("!")
        value, steps = known[value.strip("!")], steps + 1
    return str(int(value) ^ negated), steps


@pytest.mark.parametrize("skill", range(5))
def test_answers_follow_from_the_clauses(skill):
    draw = random.Random(skill)
    found = [lego(draw, 5, skill) for _ in range(200)]
    assert all(solve(question) == (answer, skill + 1) for question, answer in found)
    assert 60 < sum(answer == "1" for _, answer in found) < 140
    assert len({question for question, _ in found}) > 195
