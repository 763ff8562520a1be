"""Tasks alone: lengths, depths, spans, controls. No model."""

import numpy as np
import pytest
from evaluate_stand_ins import tokenizer

from longlode.core.errors import ConfigError
from longlode.evaluate.run import suite_tasks
from longlode.evaluate.surprisal import make_encode
from longlode.evaluate.tasks import MAIN, TASKS, SpanScore
from longlode.evaluate.tasks.base import largest_count
from longlode.evaluate.tasks.loss_by_position import bucket_edges

TEXTS = [
    f"Page {page}. " + " ".join(f"line {page} {line} goes on." for line in range(90)) for page in range(5)
]


@pytest.fixture(scope="module")
def encode():
    return make_encode(tokenizer())


@pytest.mark.parametrize("name", suite_tasks("basic"))
@pytest.mark.parametrize("length", [150, 400])
def test_fills_the_length_and_marks_the_answer(name, length, encode):
    task = TASKS.get(name)().bound_to(encode, TEXTS)
    for seed in range(6):
        example = task.make(length, seed)
        assert example == task.make(length, seed)
        tokens = encode(example.text)
        if task.needs_texts:
            assert length <= len(tokens) <= length + 12
            tokens = tokens.first(length)
        assert length - 40 < len(tokens) <= length
        for start, stop in example.answer_spans:
            covered = [tokens.offsets[i] for i in tokens.positions(start, stop)]
            if not task.needs_texts:
                assert covered[0][0] >= start - 1
                assert covered[-1][1] == stop
    assert task.make(length, 0).text != task.make(length, 1).text


def test_depth_moves_the_pass_code(encode):
    task = TASKS.get("passkey")().bound_to(encode)
    places = []
    for seed in range(5):
        example = task.make(400, seed)
        code = example.target.strip()
        assert example.prompt.count(code) == 2
        assert example.variants["no_context"].prompt.count(code) == 0
        assert example.variants["no_context"].target == example.target
        (start, stop), (other, _) = example.answer_spans[0], example.variants["no_context"].answer_spans[0]
        assert example.text[start:stop] == code == example.variants["no_context"].text[other:]
        places.append(example.prompt.index(code) / len(example.prompt))
    assert [example_depth(task, seed) for seed in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert places == sorted(places)
    assert places[0] < 0.2 < 0.8 < places[-1]


def example_depth(task, seed):
    return task.make(400, seed).meta["depth"]


def test_recall_asks_for_a_line_that_is_there_once(encode):
    example = TASKS.get("recall")().bound_to(encode).make(300, 2)
    question = example.prompt.splitlines()[-1]
    lines = example.prompt.splitlines()[:-1]
    assert len(lines) == example.meta["num_pairs"]
    assert lines.count(question + example.target + ";") == 1
    assert not any(
        line.startswith(question) for line in example.variants["no_context"].prompt.splitlines()[:-1]
    )


def test_repeated_list_conditions(encode):
    example = TASKS.get("repeated_list")().bound_to(encode).make(300, 3)

    def lists(side):
        words = [side.text[a:b] for a, b in side.answer_spans]
        return words[:10], words[10:]

    first, second = lists(example)
    assert first == second
    first_permuted, permuted = lists(example.variants["permuted"])
    assert first_permuted == first
    assert sorted(permuted) == sorted(first)
    assert all(a != b for a, b in zip(first, permuted, strict=True))
    assert not set(lists(example.variants["new"])[1]) & set(first)
    assert example.meta["filler_tokens"] > 100


def test_rows_of_a_perfect_and_of_a_forgetful_reader(encode):
    task = TASKS.get("passkey")().bound_to(encode)
    example = task.make(200, 0)

    def spans(nats, hits):
        return [SpanScore(np.arange(1, 4), np.asarray(nats), np.asarray(hits))]

    (row,) = task.rows(
        example,
        {MAIN: spans([0.1, 0.2, 0.3], [True] * 3), "no_context": spans([2.0] * 3, [True, True, False])},
    )
    assert row["hard"] == 1.0
    assert row["hard_control"] == 0.0
    assert row["smooth"] == pytest.approx(-0.2)
    assert row["gain"] == pytest.approx(1.8)


def test_windows_do_not_overlap_and_spread_over_texts(encode):
    task = TASKS.get("loss_by_position")().bound_to(encode, TEXTS)
    num = task.num_available(200, 1000)
    made = [task.make(200, seed).meta for seed in range(num)]
    places = [(meta["text"], meta["first_token"]) for meta in made]
    assert len(set(places)) == num > 5
    assert {text for text, _ in places[:5]} == set(range(5))
    assert all(first % 200 == 0 for _, first in places)
    assert task.num_available(200, 3) == 3


@pytest.mark.parametrize("name", ["passkey", "repeated_list", "recall"])
def test_too_short_a_length_says_how_long(name, encode):
    with pytest.raises(ConfigError, match="takes") as caught:
        TASKS.get(name)().bound_to(encode).make(4, 0)
    needed = int(str(caught.value).split("at least ")[1].rstrip("."))
    TASKS.get(name)().bound_to(encode).make(needed, 0)


def test_texts_are_asked_for(encode):
    with pytest.raises(ConfigError, match="has no texts"):
        TASKS.get("loss_by_position")().bound_to(encode)
    with pytest.raises(ConfigError, match="at least 64"):
        TASKS.get("context_curve")().bound_to(encode, TEXTS).make(63, 0)
    with pytest.raises(ConfigError, match="longest of the 5 given"):
        TASKS.get("loss_by_position")().bound_to(encode, TEXTS).make(100_000, 0)


@pytest.mark.parametrize(
    ("base", "step", "limit"), [(10, 3, 100), (10, 3, 10), (10, 3, 9), (1, 1, 5000), (50, 17, 4096)]
)
def test_largest_count_is_exact(base, step, limit):
    calls = []

    def num_tokens(n):
        calls.append(n)
        return base + step * n + (n % 3 == 1)

    got = largest_count(num_tokens, limit)
    expected = max((n for n in range(limit + 1) if base + step * n + (n % 3 == 1) <= limit), default=-1)
    assert got in (expected, expected - 1)  # the wobble of one token may cost one step
    assert got < 0 or num_tokens(got) <= limit
    assert len(calls) < 16


def test_largest_count_does_not_creep_where_the_first_steps_mislead():
    calls = []

    def num_tokens(n):
        calls.append(n)
        return 10 + min(n, 8) * 100 + n

    assert largest_count(num_tokens, 3000) == 2190
    assert len(calls) < 40


def test_buckets_cover_every_position_once():
    for length in (2, 16, 17, 100, 512):
        edges = bucket_edges(length)
        assert [p for a, b in edges for p in range(a, b)] == list(range(1, length))


def test_every_task_is_in_a_suite():
    suites = {
        name: set(suite_tasks(name))
        for name in ("basic", "recall", "text", "reasoning", "biographies", "procedures", "all")
    }
    assert (
        suites["all"]
        == set(TASKS)
        == set().union(*(tasks for suite, tasks in suites.items() if suite != "all"))
    )
    assert suites["basic"] == {"passkey", "recall", "repeated_list", "loss_by_position", "context_curve"}
    with pytest.raises(ConfigError, match="reasoning"):
        suite_tasks("reason")
