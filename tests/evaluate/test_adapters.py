"""Published benchmarks from local files: their formats and their scores, on samples written for these tests."""

import csv
import json
import random

import pytest
import torch
from evaluate_stand_ins import tokenizer
from transformers import AutoModelForCausalLM

import longlode  # noqa: F401  (registers the model)
from longlode.core.errors import ConfigError, InputError
from longlode.core.rows import read_rows
from longlode.evaluate import evaluate
from longlode.evaluate.adapters import FORMATS, LongBench, LRARetrieval, LRAText, find_records, scorers
from longlode.evaluate.surprisal import make_encode
from longlode.models import LonglodeConfig

TEXT = "The tower stands on the island. A bridge leads to the harbour. The clock in the tower is broken. " * 6
SAMPLES = {
    "longbench": [
        {
            "input": "Where is the tower?",
            "context": TEXT,
            "answers": ["on the island"],
            "dataset": "hotpotqa",
        },
        {
            "input": "A question",
            "context": TEXT,
            "answers": ["place"],
            "dataset": "trec",
            "all_classes": ["place", "time"],
        },
        {"input": "", "context": TEXT, "answers": ["Paragraph 3"], "dataset": "passage_retrieval_en_e"},
    ],
    "leval": [
        {"input": TEXT, "instructions": ["A or B?", "C?"], "outputs": ["A", "BC"], "evaluation": "exam"},
        {"input": TEXT, "instructions": ["Sum up."], "outputs": ["A broken clock"], "evaluation": "rouge"},
        {"input": TEXT, "instructions": ["Where?"], "outputs": ["island"], "evaluation": "f1"},
    ],
    "loogle": [
        {"context": TEXT, "question": "What is broken?", "answer": "The clock"},
        {"input": TEXT, "qa_pairs": "[{'Q': 'Where?', 'A': 'island', 'S': []}]"},
        {"input": TEXT, "qa_pairs": [{"Q": "What leads there?", "A": "a bridge"}]},
    ],
    "helmet": [
        {"context": TEXT, "question": "What is broken?", "answer": ["the clock", "clock"]},
        {"context": TEXT, "question": "Where is the tower?", "answer": "island"},
        {"context": TEXT, "question": "What leads to the harbour?", "answer": "A bridge"},
    ],
    "babilong": [
        {"input": TEXT + "Mary went to the kitchen.", "question": "Where is Mary?", "target": "kitchen"},
        {"input": TEXT + "John went to the office.", "question": "Where is John?", "target": "office"},
        {"input": TEXT + "Mary has the milk.", "question": "What has Mary?", "target": "milk"},
    ],
    "booksort": [
        {"excerpt": TEXT, "segment_1": "The tower", "segment_2": "A bridge", "present_seg1_first": True},
        {"excerpt": TEXT, "segment_1": "A bridge", "segment_2": "The clock", "present_seg1_first": False},
        {"excerpt": TEXT, "segment_1": "The tower", "segment_2": "The clock", "present_seg1_first": 1},
    ],
    "lra_text": [
        {"text": TEXT + "Dull.", "label": 0},
        {"text": TEXT + "A joy.", "label": 1},
        {"text": TEXT + "Dull again.", "label": "0"},
    ],
    "lra_retrieval": [
        {"label": "1.0", "id1": "P01", "id2": "P02", "text1": TEXT, "text2": 'It cites "P01".'},
        {"label": "0.0", "id1": "P01", "id2": "P03", "text1": TEXT, "text2": "It cites none."},
        {"label": "1", "id1": "P02", "id2": "P03", "text1": "A\tb", "text2": TEXT},
    ],
}


def place(folder, name):
    """The file of a format's sample."""
    return folder / f"{name}.{'tsv' if name == 'lra_retrieval' else 'jsonl'}"


@pytest.fixture
def files(tmp_path):
    for name, records in SAMPLES.items():
        if name == "lra_retrieval":
            with place(tmp_path, name).open("w", newline="") as stream:
                csv.writer(stream, delimiter="\t").writerows(one.values() for one in records)
        else:
            place(tmp_path, name).write_text("".join(json.dumps(one) + "\n" for one in records))
    return tmp_path


@pytest.mark.parametrize("name", FORMATS)
def test_the_right_answer_is_right_and_another_is_not(files, name):
    (task,) = find_records([f"{name}:{place(files, name)}"], FORMATS)
    task = task.bound_to(make_encode(tokenizer()))
    assert task.name == f"{name}_{name}"
    assert task.num_available(500, 99) == len(task.records) >= 3
    for number, record in enumerate(task.records):
        example = task.make(500, number)
        (span,) = example.answer_spans
        assert example.text[slice(*span)] == record.answers[0]
        assert record.context in example.prompt
        assert record.question in example.prompt
        assert task.judge(example, [f" {record.answers[0]}"]) == {"hard": 1.0}
        assert task.judge(example, [f" {record.answers[0]}", " nothing"]) == {"hard": 0.5}


def test_a_long_context_loses_its_middle(files):
    task = LongBench(files / "longbench.jsonl").bound_to(make_encode(tokenizer()))
    record = task.records[0]
    whole = len(task.encode(task.make(500, 0).text))
    for length in range(30, whole, 7):
        example = task.make(length, 0)
        used = len(task.encode(example.text))
        assert length - 4 <= used <= length
        context = example.prompt.split("\n\nQuestion")[0]
        half = context[: len(context) // 3]
        assert record.context.startswith(half)
        assert record.context.endswith(context[-len(half) :])
        assert example.meta["tokens_cut"] > 0
        assert 1 <= example.max_new_tokens <= length - len(task.encode(example.prompt))
    assert task.make(whole, 0).meta["tokens_cut"] == 0
    with pytest.raises(ConfigError, match="takes"):
        task.make(8, 0)


def test_what_is_not_of_the_format_is_named_with_its_line(files):
    good, bad = SAMPLES["longbench"][0], dict(SAMPLES["longbench"][0], dataset="vcsum")
    path = files / "x.jsonl"
    for broken, found in (
        ({"input": "a"}, "dataset"),
        (bad, "vcsum"),
        (dict(good, answers=[]), "without an answer"),
    ):
        path.write_text(json.dumps(good) + "\n" + json.dumps(broken) + "\n")
        with pytest.raises(InputError, match=found) as caught:
            LongBench(path)
        assert "record 2" in str(caught.value) or found == "without an answer"
    with pytest.raises(InputError, match="not there"):
        LongBench(files / "none.jsonl")
    for name in ("nobench:a.jsonl", "longbench", "longbench:"):
        with pytest.raises(ConfigError, match="FORMAT:FILE"):
            find_records([name], FORMATS)
    with pytest.raises(ConfigError, match="context"):
        LongBench(files / "longbench.jsonl", template="no place")


def test_evaluate_reads_and_writes_records(files, tmp_path):
    torch.manual_seed(0)
    tok = tokenizer()
    config = LonglodeConfig(
        vocab_size=len(tok), hidden_size=32, mixers="DS", num_heads=2, head_dim=16, window_size=8
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    tasks = find_records([f"helmet:{files / 'helmet.jsonl'}"], FORMATS)
    evaluate(model, tok, tasks=tasks, lengths=[64], num_examples=50, out=tmp_path / "out")
    rows = read_rows(tmp_path / "out" / "examples.parquet")
    assert [row["record"] for row in rows] == [0, 1, 2]
    assert all(row["hard"] in (0.0, 1.0) and row["smooth"] < 0 and "\n" not in row["written"] for row in rows)


def test_lras_files_are_read_as_they_are_published(files, tmp_path):
    retrieval = LRARetrieval(place(files, "lra_retrieval"))
    assert [record.answers for record in retrieval.records] == [("yes",), ("no",), ("yes",)]
    assert 'Second paper: It cites "P01".' in retrieval.records[0].context
    assert "First paper: A\tb" in retrieval.records[2].context
    (files / "short.tsv").write_text("1\tP01\tP02\ta text\n")
    with pytest.raises(InputError, match="text2"):
        LRARetrieval(files / "short.tsv")
    (files / "wrong.jsonl").write_text('{"text": "a", "label": 2}\n')
    with pytest.raises(InputError, match=r"record 1.*0 or 1"):
        LRAText(files / "wrong.jsonl")
    for side, texts in (("neg", ("bad", "worse")), ("pos", ("good",))):
        (tmp_path / "imdb" / side).mkdir(parents=True)
        for number, text in enumerate(texts):
            (tmp_path / "imdb" / side / f"{number}.txt").write_text(text)
    reviews = LRAText(tmp_path / "imdb").records
    assert [(one.context, one.answers) for one in reviews] == [
        ("bad", ("negative",)),
        ("good", ("positive",)),
    ]
    with pytest.raises(InputError, match="neg"):
        LRAText(tmp_path)


def subsequence(a, b):
    """Length of the longest common subsequence, by the definition."""
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + subsequence(a[:-1], b[:-1])
    return max(subsequence(a[:-1], b), subsequence(a, b[:-1]))


def test_rouge_is_of_the_longest_common_subsequence():
    rng = random.Random(0)
    for _ in range(40):
        a, b = (rng.choices("xyz", k=rng.randint(1, 8)) for _ in range(2))
        same = subsequence(a, b)
        wanted = 2 * same / (len(a) + len(b))
        assert scorers.rouge_l(" ".join(a), " ".join(b)) == pytest.approx(wanted)


def test_scores_by_hand():
    assert scorers.f1("The old tower, on an island.", "tower on the island") == pytest.approx(6 / 7)
    assert scorers.exact("The Clock!", "clock") == 1.0
    assert scorers.contains("it is the clock.", "A clock") == 1.0
    assert scorers.contains("it is a cloak", "clock") == 0.0
    assert [scorers.choice(text, "BC") for text in ("B, C", "CB.", "B", "A B C", "")] == [1, 1, 0, 0, 0]
    assert scorers.right_number("Paragraph 3, or 4", "Paragraph 3") == 0.5
    assert scorers.right_number("none", "3") == 0.0
    assert scorers.code_similarity("# note\nreturn x\nmore", "return x") == 1.0
    assert scorers.one_class("a place or a time", "place", ["place", "time"]) == 0.5
    assert scorers.one_class("Number of days", "Number of days", ["Number", "Number of days"]) == 1.0
    assert scorers.one_class("time", "place", ["place", "time"]) == 0.0
    labels = ["kitchen", "office"]
    assert scorers.only_label("In the kitchen. Not the office.", "kitchen", labels, "Where is Mary?") == 1.0
    assert scorers.only_label("kitchen or office", "kitchen", labels, "Where is Mary?") == 0.0
    assert scorers.only_label("from office to kitchen", "kitchen", labels, "After the office?") == 1.0
