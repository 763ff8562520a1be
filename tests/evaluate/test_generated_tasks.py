"""The generated tasks: solved by an oracle, not by chance, at the public settings."""

import random
import re
from collections import Counter

import numpy as np
import pytest
from generated_oracles import ORACLES

from longlode.core.errors import ConfigError
from longlode.evaluate import TASKS
from longlode.evaluate.tasks.base import MAIN, SpanScore, Tokens
from longlode.evaluate.tasks.controlled import DEPTHS
from longlode.evaluate.tasks.generated import GeneratedTask, Question, spread
from longlode.evaluate.tasks.joint_recall import joint_recall_row
from longlode.evaluate.tasks.listops import tree
from longlode.evaluate.tasks.mqar import PUBLIC, multi_query_recall
from longlode.evaluate.tasks.state_tracking import arithmetic_row, parity_row

GENERATED = [name for name in TASKS if issubclass(TASKS.get(name), GeneratedTask)]
LENGTH = 1500


def encode(text):
    """Words, single digits and signs as tokens; as quick as it gets."""
    spans = [found.span() for found in re.finditer(r" ?[A-Za-z]+|\d|\s|[^\w\s]|_", text)]
    return Tokens(list(range(len(spans))), spans)


def bound(name, **options):
    return TASKS.get(name)(**options).bound_to(encode)


FREE = {"biography_pair"}  # several answers are right; see test_writing.py


@pytest.mark.parametrize("name", [name for name in GENERATED if name not in FREE])
def test_an_oracle_solves_it_from_the_text(name):
    task = bound(name)
    for seed in range(10):
        question = task.asked(LENGTH, seed)
        assert list(question.answers) == list(ORACLES[name](question))


@pytest.mark.parametrize("name", GENERATED)
def test_lengths_spans_and_seeds(name):
    task = bound(name)
    sizes = []
    for length in (LENGTH, 2 * LENGTH):
        example, question = task.make(length, 3), task.asked(length, 3)
        assert example == task.make(length, 3)
        assert [example.text[a:b] for a, b in example.answer_spans] == list(question.answers)
        assert example.prompt == question.context + question.ask
        assert example.meta["num_answers"] == len(question.answers)
        assert "depth" in example.meta
        sizes.append(len(encode(example.text)))
        assert 0.6 * length < sizes[-1] <= length
    assert task.make(LENGTH, 3).text != task.make(LENGTH, 4).text
    with pytest.raises(ConfigError, match="takes") as caught:
        task.make(4, 0)
    needed = int(str(caught.value).split("at least ")[1].rstrip("."))
    task.make(needed + 64, 0)  # UUIDs take more and fewer tokens


@pytest.mark.parametrize("name", GENERATED)
def test_a_guess_scores_its_chance(name):
    """Answers of other questions, drawn without reading this one, score what the task says that chance gives."""
    task = bound(name)
    made = [task.asked(LENGTH, seed).answers for seed in range(40)]
    rng = random.Random(1)
    drawn = [
        (answer, rng.choice(rng.choice(made[:k] + made[k + 1 :])))
        for k, answers in enumerate(made)
        for answer in answers
        for _ in range(5)
    ]
    share = np.mean([answer == guess for answer, guess in drawn])
    chance = next(metric.chance for metric in task.metrics if metric.name == "hard")
    assert share == pytest.approx(chance, abs=0.02 if chance < 0.05 else 0.12)
    if task.choices:
        assert chance == 1 / len(task.choices)
        assert {answer for answers in made for answer in answers} <= set(task.choices)


SETTINGS = {  # RULER's table: haystack, keys, values; keys hidden, values of one, keys asked for
    "niah_single_1": ("noise", "word", "number", 1, 1, 1),
    "niah_single_2": ("prose", "word", "number", 1, 1, 1),
    "niah_single_3": ("prose", "word", "uuid", 1, 1, 1),
    "niah_multikey_1": ("prose", "word", "number", 4, 1, 1),
    "niah_multikey_2": ("needles", "word", "number", None, 1, 1),
    "niah_multikey_3": ("needles", "uuid", "uuid", None, 1, 1),
    "niah_multivalue": ("prose", "word", "number", 1, 4, 1),
    "niah_multiquery": ("prose", "word", "number", 4, 1, 4),
}
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
KINDS = {"word": "[a-z]+-[a-z]+", "uuid": UUID, "number": r"[1-9]\d{6}"}


@pytest.mark.parametrize("name", SETTINGS)
def test_needles_have_the_settings_of_ruler(name):
    haystack, keys, values, num_keys, num_values, num_queries = SETTINGS[name]
    question = bound(name).asked(LENGTH, 2)
    kind = {"number": "numbers", "uuid": "uuids"}[values]
    form = rf"One of the special magic {kind} for ({KINDS[keys]}) is: ({KINDS[values]})\."
    found = re.findall(form, question.context)
    if num_keys is not None:
        assert len(found) == num_keys * num_values
        assert len({key for key, _ in found}) == num_keys
    assert len(question.answers) == num_values * num_queries
    rest = re.sub(form, "", question.context.split("\n", 1)[1])
    repeated = rest.count("Here we go. There and back again.")
    assert (repeated > 20) == (haystack == "noise")
    assert (rest.strip() == "") == (haystack == "needles")


def test_prose_is_the_held_out_texts_where_there_are_some():
    text = " ".join(f"Sentence number {number} is here." for number in range(500))
    task = TASKS.get("niah_single_2")().bound_to(encode, [text])
    context = task.asked(600, 0).context
    assert context.count("is here.") > 40
    assert "Sentence number 3 is here. Sentence number 4 is here." in context


@pytest.mark.parametrize(
    "name", ["niah_single_1", "niah_multikey_2", "json_recall", "phonebook", "verbatim_memory"]
)
def test_depth_is_where_the_answer_stands(name):
    task = bound(name)
    for seed, depth in enumerate(DEPTHS):
        question = task.asked(LENGTH, seed)
        assert question.meta["depth"] == depth
        place = question.context.index(question.answers[0]) / len(question.context)
        assert place == pytest.approx(depth, abs=0.1)


def test_word_counts_are_those_of_ruler():
    for size, often, rarely in ((50, 6, 1), (400, 30, 3)):
        question = TASKS.get("common_words")().question(size, 0.0, random.Random(0))
        counts = Counter(re.findall(r"\d+\. (\w+)", question.context.rsplit("\n\n", 1)[1]))
        assert Counter(counts.values()) == {often: 10, rarely: size}
    question = TASKS.get("frequent_words")().question(4000, 0.0, random.Random(0))
    words = Counter(question.context.split(": ")[1].rstrip(".").split())
    assert len(words) == 4000 // 50
    assert words.most_common(1)[0][0] == "..."
    first, second, third = (count for _, count in words.most_common(3))
    assert first / second == pytest.approx(4, rel=0.02)
    assert first / third == pytest.approx(9, rel=0.02)


def test_variable_tracking_is_one_chain_of_four_hops():
    question = bound("variable_tracking").asked(LENGTH, 0)
    text = question.context.rsplit("\n\n", 1)[1]
    assert len(re.findall(r"VAR [A-Z]{5} = \d{5}\.", text)) == 1
    assert len(re.findall(r"VAR [A-Z]{5} = VAR [A-Z]{5}\.", text)) == 4
    assert len(question.answers) == 5


def test_thread_lengths():
    for name, threads in (("needle_thread", 1), ("needle_threads", 3), ("needle_branches", 1)):
        question = bound(name).asked(2 * LENGTH, 0)
        assert len(question.answers) == threads
        keys = re.findall(rf'"\*?({UUID})": "({UUID})"', question.context)
        assert sum(value in {key for key, _ in keys} for _, value in keys) == threads * 4


@pytest.mark.parametrize(("length", "pairs"), PUBLIC)
def test_mqar_rows_have_zoologys_settings(length, pairs):
    rng = np.random.default_rng(0)
    early = []
    for _ in range(20):
        tokens, labels = multi_query_recall(rng, length=length, pairs=pairs)
        keys, values = tokens[0 : 2 * pairs : 2], tokens[1 : 2 * pairs : 2]
        assert len(set(keys)) == len(set(values)) == pairs
        assert 1 <= keys.min() <= keys.max() < 4096 <= values.min() <= values.max() < 8192
        (places,) = np.nonzero(labels != -100)
        assert len(places) == pairs
        assert (places % 2 == 0).all()
        assert places.min() >= 2 * pairs
        known = dict(zip(keys, values, strict=True))
        assert [known[tokens[place]] for place in places] == labels[places].tolist()
        rest = np.delete(tokens[2 * pairs :], places - 2 * pairs)
        assert not rest.any()
        early.append(places.min() == 2 * pairs)
    assert np.mean(early) > 0.5  # gap 1 is by far the likeliest
    with pytest.raises(ConfigError):
        multi_query_recall(rng, length=length, pairs=length // 4 + 1)


def test_joint_recall_rows_need_group_and_key():
    tokens, labels = joint_recall_row(np.random.default_rng(1), groups=3, keys=5, asked=4, vocabulary=100)
    kept, at = {}, 0
    for _ in range(3):
        group, pairs = tokens[at], tokens[at + 1 : at + 11].reshape(-1, 2)
        kept |= {(group, key): value for key, value in pairs}
        at += 11
    assert len(kept) == 15
    asked = tokens[at:].reshape(-1, 3)
    assert len(asked) == 4
    (places,) = np.nonzero(labels != -100)
    assert places.tolist() == list(range(at + 1, len(tokens), 3))
    assert [kept[group, key] for group, key, _ in asked] == labels[places].tolist() == asked[:, 2].tolist()


def test_state_tracking_rows():
    rng = np.random.default_rng(2)
    bits, parities = parity_row(rng, 40)
    assert parities.tolist() == [sum(bits[: k + 1]) % 2 for k in range(40)]
    seen = set()
    for _ in range(30):
        tokens, labels = arithmetic_row(rng, 7)
        text = "".join("01234+-*="[token] for token in tokens)
        assert re.fullmatch(r"([0-4][-+*]){6}[0-4]=", text)
        assert labels[-1] == eval(text[:-1]) % 5
        assert (labels[:-1] == -100).all()
        seen.add(labels[-1])
    assert seen == set(range(5))


def test_sets_share_one_word_in_half_of_the_examples_in_both_orders():
    for name, order in (("disjoint_small_first", 1), ("disjoint_large_first", -1)):
        task = bound(name)
        questions = [task.asked(300, seed) for seed in range(60)]
        for question in questions:
            sets = [
                line.rstrip(".").split(": ")[1].split(", ") for line in question.context.strip().splitlines()
            ]
            small, large = sets[::order]
            assert len(small) == 4 < len(large)
            assert len(set(small) & set(large)) == (question.answers == ("yes",))
        assert 15 < sum(question.answers == ("yes",) for question in questions) < 45


def test_listops_has_the_arenas_bounds():
    def nodes(node):
        yield node
        for argument in node.arguments:
            yield from nodes(argument)

    for seed in range(20):
        root = tree(random.Random(seed), 300)
        inner = [node for node in nodes(root) if node.operator]
        leaves = [node for node in nodes(root) if not node.operator]
        assert 300 <= len(leaves) < 310
        assert {node.operator for node in inner} == {"MIN", "MAX", "MED", "SM"}
        assert all(2 <= len(node.arguments) <= 10 for node in inner)
        assert max(node.depth for node in leaves) <= 10
        assert {node.digit for node in leaves} <= set(range(10))


def test_rows_count_answers_and_tokens():
    def score(hits, nats):
        return SpanScore(np.arange(len(hits)), np.asarray(nats), np.asarray(hits))

    task = bound("needles_many")
    scores = [score([True, True], [0.1, 0.3]), score([True, False], [1.0, 2.0]), score([True], [0.6])]
    (row,) = task.rows(task.make(LENGTH, 0), {MAIN: scores})
    assert row == {"hard": pytest.approx(2 / 3), "exact": 0.0, "smooth": pytest.approx(-0.8)}
    assert task.rows(task.make(LENGTH, 0), {MAIN: scores[:1]})[0]["exact"] == 1.0


def test_the_context_can_come_twice():
    once, twice = bound("mqar"), bound("mqar", repeat=2)
    example = twice.make(LENGTH, 0)
    half = example.prompt[: example.prompt.index("\nAgain")]
    assert half[: len(half) // 2] == half[len(half) // 2 :]
    assert example.meta["num_pairs"] < once.make(LENGTH, 0).meta["num_pairs"]
    assert twice.options() == {"repeat": 2}
    with pytest.raises(ConfigError, match="repeat"):
        bound("mqar", repeat=0)


def test_spread_puts_lines_at_their_depths():
    lines = list("abcd")
    assert spread(lines, ["X"], [0.0]) == list("Xabcd")
    assert spread(lines, ["X", "Y"], [1.0, 0.5]) == list("abYcdX")
    assert spread([], ["X", "Y"], [0.3, 0.3]) == ["X", "Y"]


def test_joints_may_differ():
    class Two(GeneratedTask):
        def question(self, size, depth, rng):
            return Question("c" * size, "ask", ("one", "two"), ("; next: ",))

    prompt, target, spans = Two()._laid_out(Two().question(3, 0.0, random.Random(0)))
    assert (prompt, target) == ("cccask", " one; next: two")
    assert [(prompt + target)[a:b] for a, b in spans] == ["one", "two"]
