"""MAD's tasks and the in-context languages have the public settings; the automata are what they should be."""

import itertools
import random
import re

import pytest

from longlode.evaluate import TASKS
from longlode.evaluate.tasks.mad import CONTENT, KEYS, NOISE, VALUES
from longlode.evaluate.tasks.regular_languages import (
    SYMBOLS,
    Automaton,
    Shown,
    minimal,
    random_automaton,
    string_lengths,
)


def test_fuzzy_recall_has_motifs_of_up_to_three_symbols():
    question = TASKS.get("fuzzy_recall")().question(200, 0.0, random.Random(0))
    pairs = re.findall(r"([a-h](?: [a-h])*) ([0-7](?: [0-7])*);", question.context)
    assert len(pairs) == len({key for key, _ in pairs}) == 200
    for side in zip(*pairs, strict=True):
        assert {len(one.split()) for one in side} == {1, 2, 3}
    assert len(question.answers) == 8
    many = TASKS.get("fuzzy_recall")().question(900, 0.0, random.Random(0))
    pairs = re.findall(r"([a-h](?: [a-h])*) ([0-7](?: [0-7])*);", many.context)
    assert len(pairs) == 900
    assert len(set(pairs)) == len({key for key, _ in pairs}) == 500


def test_noisy_recall_has_a_vocabulary_of_32_and_a_fifth_of_noise():
    assert (len(KEYS), len(VALUES), len(NOISE)) == (8, 8, 16)
    assert not set(KEYS) & set(NOISE)
    symbols = TASKS.get("noisy_recall")().question(400, 0.0, random.Random(0)).context.split()
    assert set(symbols) == {*KEYS, *VALUES, *NOISE} - (set(VALUES) - set(symbols))
    assert sum(one in NOISE for one in symbols) / len(symbols) == pytest.approx(0.2, abs=0.001)
    assert all(after in VALUES for one, after in itertools.pairwise(symbols) if one in KEYS)


def test_selective_copying_copies_sixteen_of_a_length():
    question = TASKS.get("selective_copying")().question(240, 0.0, random.Random(0))
    symbols = question.context.split()
    assert len(symbols) == 256
    assert symbols.count(".") == 240
    assert len(question.answers) == 16
    assert set(question.answers) <= set(CONTENT)
    assert len({*CONTENT, ".", "|"}) == 16


def language(edges, length):
    """All strings of a length, by trying every one over the alphabet."""
    found = set()
    for text in itertools.product(sorted({symbol for edge in edges for symbol in edge}), repeat=length):
        state = 0
        for symbol in text:
            state = edges[state].get(symbol) if state is not None else None
        if state is not None:
            found.add(text)
    return found


def test_a_minimal_automaton_has_the_same_language_and_no_two_states_alike():
    rng = random.Random(3)
    merged = 0
    for _ in range(60):
        num = rng.randint(2, 6)
        edges = [
            {symbol: rng.randrange(num) for symbol in rng.sample("abc", rng.randint(1, 2))}
            for _ in range(num)
        ]
        smaller = minimal(edges)
        merged += len(smaller) < num
        assert language(smaller, 5) == language(edges, 5)
        turned = [
            [smaller[k], *smaller] for k in range(len(smaller))
        ]  # state k first: 1 is added to every target
        seen = [
            frozenset(language([{s: to + 1 for s, to in edge.items()} for edge in one], 6)) for one in turned
        ]
        assert len(set(seen)) == len(seen)
    assert merged > 5


def test_automata_have_the_bounds_of_regbench():
    rng = random.Random(4)
    sizes = set()
    for _ in range(200):
        edges = random_automaton(rng).edges
        sizes.add(len(edges))
        assert all(1 <= len(edge) <= 3 for edge in edges)
        assert {symbol for edge in edges for symbol in edge} <= set(SYMBOLS)
    assert len(SYMBOLS) == 18
    assert max(sizes) == 12
    assert {4, 8} < sizes


def test_strings_are_of_the_language_and_scored_places_have_one_legal_symbol():
    rng = random.Random(5)
    proven = 0
    for _ in range(60):
        automaton = random_automaton(rng)
        shown = [automaton.walk(rng, rng.randint(1, 49)) for _ in range(10)]
        asked = automaton.walk(rng, 30)
        for place in automaton.proven(Shown(shown), asked):
            (state,) = automaton.after(asked[:place], [0])
            assert list(automaton.edges[state]) == [asked[place]]
            proven += 1
    assert proven > 100


def test_a_place_that_the_strings_do_not_prove_is_not_scored():
    automaton = Automaton(({"a": 1, "b": 2}, {"c": 0}, {"d": 0}))
    assert list(automaton.proven(Shown([["b", "d"]]), ["a", "c", "b", "d"])) == [3]
    assert list(automaton.proven(Shown([["a", "c", "b", "d"]]), ["b", "d", "a", "c"])) == [1, 3]


def test_ten_to_twenty_strings_of_up_to_49_symbols():
    task = TASKS.get("regular_language")()
    for size in (10, 20):
        question = task.question(size, 0.0, random.Random(size))
        lengths = [len(text.split()) for text in question.context.rstrip("|").split("|")]
        assert len(lengths) == size
        assert 1 <= min(lengths) <= max(lengths) <= 49
        assert 1 <= len(question.answers) <= 8


def test_lengths_of_strings_are_even_over_their_range():
    rng = random.Random(7)
    lengths = [string_lengths(rng, 10) for _ in range(500)]
    drawn = [length for one in lengths for length in one]
    assert (min(drawn), max(drawn)) == (1, 49)
    assert all(
        drawn.count(length) / len(drawn) == pytest.approx(1 / 49, abs=0.006) for length in range(1, 50)
    )
    assert max(map(sum, lengths)) - min(map(sum, lengths)) < 60
