"""Answers that a model writes, and how tasks judge them."""

import itertools
import random
import re

import pytest
import torch
from evaluate_stand_ins import tokenizer
from transformers import AutoModelForCausalLM

import longlode  # noqa: F401  (registers the model)
from longlode.core.errors import ConfigError
from longlode.core.rows import read_rows
from longlode.evaluate import TASKS, evaluate
from longlode.evaluate.run import find_tasks
from longlode.evaluate.tasks.base import Example, Task, Tokens
from longlode.evaluate.tasks.functions_in_context import NUM_BITS, conjunction, fitting, teaching
from longlode.evaluate.tasks.generated import GeneratedTask
from longlode.evaluate.tasks.procedures import search, solves
from longlode.evaluate.writing import Sampling, Writer
from longlode.models import LonglodeConfig

WRITING = [name for name in TASKS if getattr(TASKS.get(name), "always_writes", False)]


def encode(text):
    spans = [found.span() for found in re.finditer(r" ?[A-Za-z]+|\d|\s|[^\w\s]|_", text)]
    return Tokens(list(range(len(spans))), spans)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    tok = tokenizer()
    config = LonglodeConfig(
        vocab_size=len(tok), hidden_size=32, mixers="DS", num_heads=2, head_dim=16, window_size=8
    )
    return AutoModelForCausalLM.from_config(config).eval(), tok


@pytest.mark.parametrize("name", WRITING)
def test_the_right_text_is_right_and_another_is_not(name):
    task = TASKS.get(name)().bound_to(encode)
    example, other = task.make(900, 3), task.make(900, 4)
    written = example.target.strip().split("\nEND")[0]
    good = task.judge(example, [written])
    bad = task.judge(example, [other.target.strip().split("\nEND")[0]])
    metrics = [name for name in good if name != "citation_precision"]
    assert all(good[metric] == 1.0 for metric in metrics)
    assert all(bad[metric] < 1.0 for metric in metrics)
    assert task.judge(example, [written, "nothing"])[metrics[0]] == 0.5
    assert example.max_new_tokens >= len(encode(example.target))


def test_any_right_pair_is_right():
    task = TASKS.get("biography_pair")().bound_to(encode)
    example = task.make(1500, 1)
    ages = {name: int(age) for name, age in re.findall(r"The age of (\w+ \w+) is (\d+)", example.prompt)}
    gap = example.meta["gap"]
    for one, age in ages.items():
        for other, another in ages.items():
            if one != other:
                right = task.judge(example, [f"It is {one} and {other}."])["hard"]
                assert right == float(abs(age - another) == gap)
    assert task.judge(example, [next(iter(ages))])["hard"] == 0.0


def test_steps_are_counted_to_the_first_wrong_one():
    task = TASKS.get("path_traversal")().bound_to(encode)
    example = task.make(900, 0)
    lines = example.target.strip().removesuffix("\nEND").split("\n")
    lines[2] = "From here, take a bus to there."
    assert task.judge(example, ["\n".join(lines)]) == {"hard": 0.0, "steps": pytest.approx(2 / len(lines))}


def test_countdown_equations_are_checked():
    numbers, target = [3, 5, 7, 2], 0
    for _, result, equations in search(tuple(numbers)):
        if result is not None:
            target = result
            assert solves("\n".join(equations), numbers, result)
            assert not solves("\n".join(equations), numbers, result + 1)
            assert not solves("\n".join(equations[:2]), numbers, result)
            assert not solves("\n".join(equations), [3, 5, 7, 4], result)
    assert target
    assert not solves("5 - 3 = 3\n7 - 3 = 4\n4 - 2 = 2", numbers, 2)
    assert not solves("7 / 2 = 3\n5 - 3 = 2\n3 - 2 = 1", numbers, 1)
    assert not solves("five + 2 = 7", numbers, 7)


def test_a_teaching_sequence_leaves_one_conjunction():
    rng = random.Random(3)
    for _ in range(20):
        literals = [(place, rng.randint(0, 1)) for place in sorted(rng.sample(range(NUM_BITS), 3))]
        examples = [(point, conjunction(literals, point)) for point in teaching(literals, rng)]
        assert [label for _, label in examples] == [1, 1, 0, 0, 0]
        for number in range(2**NUM_BITS):
            bits = [number >> place & 1 for place in range(NUM_BITS)]
            assert fitting(examples, bits) == {conjunction(literals, bits)}


def test_what_fits_is_what_every_conjunction_says():
    rng = random.Random(5)
    forms = [
        [(place, value) for place, value in enumerate(form) if value < 2]
        for form in itertools.product(range(3), repeat=3)
    ]
    for _ in range(60):
        literals = rng.choice(forms)
        points = [[rng.randint(0, 1) for _ in range(3)] for _ in range(rng.randint(0, 5))]
        examples = [(point, conjunction(literals, point)) for point in points]
        fit = [form for form in forms if all(conjunction(form, p) == label for p, label in examples)]
        for bits in ([a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)):
            # A contradiction, which no form here is, also fits where all examples are negative.
            extra = set() if any(label for _, label in examples) else {0}
            assert fitting(examples, bits) | extra == {conjunction(form, bits) for form in fit} | extra


def test_a_written_answer_is_cut_at_a_stop_text_and_is_what_generate_writes(small):
    model, tok = small
    prompts = [
        tok("line goes on . 1 2 3")["input_ids"],
        tok("Page 4 5")["input_ids"],
        tok("Page 4 6")["input_ids"],
    ]
    writer = Writer(model, tok, Sampling(), batch_tokens=8)
    whole = writer.write(prompts, [8] * 3, [()] * 3, 0)
    for prompt, (text,) in zip(prompts, whole, strict=True):
        ids = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, len(prompt) :]
        assert text == tok.decode(ids, skip_special_tokens=True)
    stop = whole[0][0].strip()[-1]
    ((cut,), *_) = writer.write(prompts, [8] * 3, [(stop,)] * 3, 0)
    assert cut == whole[0][0][: whole[0][0].index(stop)]


def test_samples_differ_and_come_again(small):
    model, tok = small
    writer = Writer(model, tok, Sampling(4, 1.0))
    prompt = tok("Page 4 5")["input_ids"]
    (first,) = writer.write([prompt], [6], [()], 1)
    assert len(first) == 4
    assert len(set(first)) > 1
    assert writer.write([prompt], [6], [()], 1) == [first]
    for samples, temperature in ((2, 0.0), (0, 1.0), (1, -1.0)):
        with pytest.raises(ConfigError, match="samples"):
            Sampling(samples, temperature)


def test_evaluate_writes_and_judges(small, tmp_path):
    model, tok = small
    options = {"lengths": [128], "num_examples": 3, "seed": 1}
    tasks = find_tasks(["mqar", "passkey"], has_texts=False, write=True)
    record = evaluate(
        model,
        tok,
        tasks=tasks,
        out=tmp_path / "a",
        sampling=Sampling(2, 1.0),
        **options,
    )
    rows = read_rows(tmp_path / "a" / "examples.parquet")
    asked = [row for row in rows if row["task"] == "mqar"]
    assert all(isinstance(row["written"], str) and 0 <= row["contained"] <= 1 for row in asked)
    assert all(row["written"] is None for row in rows if row["task"] == "passkey")
    metrics = {one["metric"] for one in record["summary"] if one["task"] == "mqar"}
    assert {"hard", "contained", "solved", "solved_once"} <= metrics
    assert record["task_options"]["mqar"] == {"repeat": 1, "write": True}
    assert record["settings"]["samples"] == 2
    again = evaluate(
        model,
        tok,
        tasks=tasks,
        out=tmp_path / "b",
        sampling=Sampling(2, 1.0),
        **options,
    )
    assert again["summary"] == record["summary"]


def test_settings_reach_the_generated_tasks_and_the_log_names_the_others(caplog):
    mqar, _ = find_tasks(["mqar", "passkey"], has_texts=False, repeat=2)
    assert isinstance(mqar, GeneratedTask)
    assert mqar.repeat == 2
    assert "passkey" in caplog.text
    assert "mqar" not in caplog.text


def test_a_task_that_lets_write_and_does_not_judge_says_so():
    class Silent(TASKS.get("parity")):
        judge = Task.judge

    with pytest.raises(NotImplementedError, match="judge"):
        Silent().judge(Example("a", "b", (), {}), ["c"])


def test_a_row_per_example_is_needed_to_judge(small, tmp_path):
    class Twice(TASKS.get("parity")):
        name = "twice"
        always_writes = True

        def rows(self, example, scores):
            return 2 * super().rows(example, scores)

    model, tok = small
    with pytest.raises(ConfigError, match="2 rows for 1"):
        evaluate(model, tok, tasks=[Twice], lengths=[64], num_examples=1, out=tmp_path / "x")
