"""Whole evaluations: a copier passes, a forgetful copier fails, Hugging Face models run, files say what
happened.
"""

import json

import numpy as np
import pytest
import torch
from evaluate_stand_ins import Copier, tokenizer
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from longlode.core.errors import ConfigError, InputError, ModelError
from longlode.core.records import read_record
from longlode.core.rows import read_rows
from longlode.evaluate import TASKS, by_name, compare, evaluate
from longlode.evaluate.run import suite_tasks
from longlode.evaluate.surprisal import SurprisalMeter

TEXTS = [
    f"Page {page}. " + " ".join(f"line {page} {line} goes on." for line in range(60)) for page in range(6)
]
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module")
def tok():
    return tokenizer()


def llama(tok, seed=0, **more):
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=len(tok), max_position_embeddings=512, **SMALL, **more)
    return LlamaForCausalLM(config).eval()


def means(record):
    return {(row["task"], row["length"], row["metric"]): row["mean"] for row in record["summary"]}


def test_copier_recalls_and_its_forgetful_twin_does_not(tok, tmp_path):
    tasks = ["passkey", "recall", "repeated_list"]
    kept = means(
        evaluate(Copier(len(tok)), tok, tasks=tasks, lengths=[300], out=tmp_path / "a", num_examples=10)
    )
    lost = means(
        evaluate(Copier(len(tok), 24), tok, tasks=tasks, lengths=[300], out=tmp_path / "b", num_examples=10)
    )
    for task in ("passkey", "recall"):
        assert kept[task, 300, "hard"] >= 0.8
        assert kept[task, 300, "gain"] > 3.0
        assert kept[task, 300, "hard_control"] == 0.0
        assert lost[task, 300, "hard"] <= 0.4  # only the depths nearest to the question
        assert lost[task, 300, "gain"] < kept[task, 300, "gain"]
    assert kept["repeated_list", 300, "smooth"] < 0.4
    assert kept["repeated_list", 300, "ratio_new"] > 0.9
    assert kept["repeated_list", 300, "hard"] == 1.0
    assert lost["repeated_list", 300, "smooth"] > 0.9


def test_compare_pairs_the_examples(tok, tmp_path):
    tasks = suite_tasks("basic")
    for name, window in (("a", 24), ("b", None)):
        evaluate(
            Copier(len(tok), window),
            tok,
            tasks=tasks,
            lengths=[200],
            out=tmp_path / name,
            num_examples=10,
            texts=TEXTS,
            name=name,
        )
    got = compare(tmp_path / "a", tmp_path / "b")
    row = {(row["task"], row["metric"]): row for row in got["rows"]}
    assert row["passkey", "gain"]["favours"] == "b"
    assert row["repeated_list", "smooth"]["favours"] == "b"  # lower is better there
    assert row["repeated_list", "smooth"]["difference"] < 0
    for entry in got["rows"]:
        assert entry["difference"] == pytest.approx(entry["b"] - entry["a"])
        assert entry["p_adjusted"] is None or entry["p"] <= entry["p_adjusted"] <= 1
    said = {line.split(" at ")[0]: line for line in got["sentences"]}
    assert "b is better" in said["passkey"]
    assert "n = 10" in said["passkey"]
    same = compare(tmp_path / "a", tmp_path / "a")
    assert all("no difference" in line for line in same["sentences"])
    assert not any(entry["favours"] or entry["difference"] for entry in same["rows"])
    assert [c["start"] for c in same["curves"]["loss_by_position"]] == [1, 16, 32, 64, 128]
    assert all(c["low"] == c["mean"] == c["high"] == 0 for c in same["curves"]["loss_by_position"])


def test_compare_refuses_other_examples(tok, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        evaluate(
            Copier(len(tok)),
            tok,
            tasks=["recall"],
            lengths=[60],
            out=tmp_path / name,
            num_examples=2,
            seed=seed,
        )
    with pytest.raises(ConfigError, match="different examples"):
        compare(tmp_path / "a", tmp_path / "b")
    with pytest.raises(InputError):
        compare(tmp_path / "a", tmp_path / "nowhere")


@pytest.mark.parametrize(
    "make",
    [
        llama,
        lambda tok: GPT2LMHeadModel(
            GPT2Config(vocab_size=len(tok), n_positions=512, n_embd=32, n_layer=2, n_head=2)
        ),
    ],
)
def test_hugging_face_models_and_files(make, tok, tmp_path):
    model = make(tok).train()
    seen = []
    record = evaluate(
        model, tok, tasks=None, lengths=[128, 200], out=tmp_path, num_examples=4, texts=TEXTS,
        progress=lambda done, total, task: seen.append((done, total, task)),
    )  # fmt: skip
    assert model.training
    assert seen[-1][0] == seen[-1][1] == 4 * 2 * len(suite_tasks("basic"))
    rows = read_rows(tmp_path / "examples.parquet")
    assert {"task", "length", "depth", "example", "hard", "smooth"} <= set.intersection(
        *(set(row) for row in rows)
    )
    assert len([row for row in rows if not TASKS.get(row["task"]).key_columns]) == 4 * 2 * 3
    assert all(row["num_tokens"] <= row["length"] for row in rows)
    saved = read_record(tmp_path, "evaluation")
    assert saved["summary"] == json.loads(json.dumps(record["summary"]))
    assert {"task", "length", "metric", "mean", "low", "high", "n"} <= set(saved["summary"][0])
    for row in saved["summary"]:
        if row["metric"] == "context_used":  # of all rows together
            assert row["low"] is row["high"] is None
        else:
            assert row["low"] <= row["mean"] <= row["high"]
        assert row["n"] == 4
    curve = [row for row in saved["curves"]["loss_by_position"] if row["length"] == 200]
    assert [(row["start"], row["stop"]) for row in curve] == [
        (1, 16),
        (16, 32),
        (32, 64),
        (64, 128),
        (128, 200),
    ]
    whole = next(
        r
        for r in saved["summary"]
        if (r["task"], r["length"], r["metric"]) == ("loss_by_position", 200, "nats")
    )
    weighted = sum(r["mean"] * (r["stop"] - r["start"]) for r in curve) / 199
    assert whole["mean"] == pytest.approx(weighted)


def test_surprisal_equals_the_models_own_loss(tok, tmp_path):
    model = llama(tok)
    evaluate(
        model, tok, tasks=["loss_by_position"], lengths=[100], out=tmp_path, num_examples=1, texts=TEXTS[:1]
    )
    rows = read_rows(tmp_path / "examples.parquet")
    got = sum(row["nats"] * row["num_scored"] for row in rows) / 99
    ids = torch.tensor([tok(TEXTS[0])["input_ids"][:100]])
    assert got == pytest.approx(model(input_ids=ids, labels=ids).loss.item(), rel=1e-5)


def test_greedy_exact_is_what_generate_writes(tok):
    model = llama(tok)
    start = torch.tensor([tok("the old road is long. On we")["input_ids"]])
    whole = model.generate(start, max_new_tokens=6, do_sample=False, pad_token_id=0)[0].tolist()
    asked = np.arange(start.shape[1], len(whole))
    (_, hits), (_, wrong) = SurprisalMeter(model).read(
        [whole, [*whole[:-1], (whole[-1] + 1) % len(tok)]], [asked, asked]
    )
    assert hits.all()
    assert not wrong.all()


def test_batching_and_the_short_way_to_the_head_change_nothing(tok):
    rng = np.random.default_rng(0)
    rows = [rng.integers(2, len(tok), size).tolist() for size in (30, 7, 19, 44)]
    asked = [np.arange(1, len(row)) for row in rows]
    config = Gemma2Config(
        vocab_size=len(tok), head_dim=16, final_logit_softcapping=2.0, initializer_range=0.5, **SMALL
    )
    for model, short in ((llama(tok), True), (Gemma2ForCausalLM(config).eval(), False)):
        meter = SurprisalMeter(model, batch_tokens=60)
        assert (meter._body is not None) is short
        for row, (nats, _) in zip(rows, meter.read(rows, asked), strict=True):
            logits = model(input_ids=torch.tensor([row])).logits[0, :-1].detach()
            expected = torch.nn.functional.cross_entropy(logits, torch.tensor(row[1:]), reduction="none")
            np.testing.assert_allclose(nats, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_first_token_counts_where_the_tokenizer_adds_bos(tmp_path):
    with_bos = tokenizer(bos=True)
    evaluate(
        Copier(len(with_bos)),
        with_bos,
        tasks=["loss_by_position"],
        lengths=[50],
        out=tmp_path,
        num_examples=1,
        texts=TEXTS,
    )
    rows = read_rows(tmp_path / "examples.parquet")
    assert sum(row["num_scored"] for row in rows) == 49
    assert rows[0]["num_tokens"] == 50


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lengths": [513]}, "positions end at 512"),
        ({"tasks": ["passkey", "guess"]}, "guess"),
        ({"lengths": []}, "lengths"),
        ({"num_examples": 0}, "num_examples"),
        ({"tasks": ["loss_by_position"], "texts": ["line 1 goes on."]}, "longest"),
    ],
)
def test_wrong_settings_say_what_to_do(change, says, tok, tmp_path):
    settings = {"tasks": ["recall"], "lengths": [64], "num_examples": 2, **change}
    with pytest.raises(ConfigError, match=says):
        evaluate(llama(tok), tok, out=tmp_path, **settings)
    assert not (tmp_path / "record.json").exists()


def test_broken_weights_raise_an_error(tok, tmp_path):
    model = llama(tok)
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(ModelError, match="not a finite number"):
        evaluate(model, tok, tasks=["recall"], lengths=[64], out=tmp_path, num_examples=1)


def test_a_task_that_does_not_fit_a_length_is_left_out_there(tok, tmp_path, caplog):
    options = {"tasks": ["recall", "needle_threads"], "num_examples": 1}
    record = evaluate(Copier(len(tok)), tok, lengths=[64], out=tmp_path / "a", **options)
    assert {row["task"] for row in record["summary"]} == {"recall"}
    assert "needle_threads" in caplog.text
    with pytest.raises(ConfigError, match="does not fit into 64"):
        evaluate(Copier(len(tok)), tok, tasks=["needle_threads"], lengths=[64], out=tmp_path / "b")


def test_suites_of_many_tasks_ask_fewer_examples_of_each():
    """So that the cost of a suite that is named without a number of examples stays in bounds."""
    asked = {
        name: len(suite_tasks(name)) * by_name.default_examples(None, name) for name in ("basic", "recall")
    }
    assert asked["recall"] <= 600
    assert by_name.default_examples(None, "basic") == by_name.default_examples(["passkey"], "recall") == 50
