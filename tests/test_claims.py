"""The mixers' table and the claims about them: what is trained, what the verdict says, the page of what is there."""

import json
import math
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import mixers, mixers_accuracy, mixers_cost, stacks
from benchmarks.claims import chunkwise, frame, overwrite, passkey_far, repeat, variants
from longlode.evaluate.bench import ROW_TASKS, run
from longlode.mixers import MIXERS
from longlode.mixers.delta_net import DeltaNetConfig
from longlode.mixers.short_conv import ShortConv

ROOT = Path(__file__).parents[1]


@pytest.fixture
def texts(tmp_path):
    """Twelve files, each of one byte value, which then tells what a window was cut from."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.txt").write_bytes(bytes([65 + number]) * 5000)
    return folder


def test_text_of_the_test_is_of_files_that_no_training_row_is_cut_from(texts):
    task = mixers_accuracy.text_rows(texts)()
    trained = task.rows(np.random.default_rng(1), 200, 32)
    tested = task.test_rows(np.random.default_rng(1), 200, 32)
    assert len(np.unique(trained.tokens)) == 9
    assert len(np.unique(tested.tokens)) == 3
    assert not set(np.unique(trained.tokens)) & set(np.unique(tested.tokens))
    assert (trained.tokens == trained.labels).all()  # one byte value per file
    with pytest.raises(SystemExit, match="expected ten"):
        mixers_accuracy.text_rows(texts / "none")


def test_mixers_without_a_convolution_stand_behind_one():
    for name in MIXERS.names():
        mixer = MIXERS.get(name).from_settings(
            {}, {"num_heads": 2, "num_kv_heads": 1, "head_dim": 4, "window": 4}
        )
        own = any(isinstance(part, ShortConv) for part in mixer.build(8).modules())
        assert own == (mixers_accuracy.settings_of("mqar", name).front is None), name
        assert mixers_accuracy.settings_of("parity", name).front is None
    front = MIXERS.get(mixers_accuracy.BASE_CONV).from_settings({}, {}).build(4)
    with torch.no_grad():
        front.weight.normal_(), front.proj.weight.normal_(), front.proj.bias.normal_()
    x = torch.randn(2, 6, 4)
    for t in range(6):
        near = sum(x[:, t - i] * front.weight[:, 0, 3 - i] for i in range(min(4, t + 1)))
        torch.testing.assert_close(front(x).y[:, t], near * (x[:, t] @ front.proj.weight.T + front.proj.bias))


def test_records_of_text_are_read_without_the_texts(texts, tmp_path, monkeypatch):
    monkeypatch.setitem(mixers_accuracy._BUDGETS, "text", {"steps": 1, "batch_size": 2, "test_rows": 2})
    monkeypatch.setattr(mixers_accuracy.TextRows, "test_lengths", (32,))
    monkeypatch.setattr(mixers_accuracy.TextRows, "train_lengths", (32,))
    monkeypatch.setitem(ROW_TASKS, "text", mixers_accuracy.TextRows)  # taken back after the test
    common = ["--work", str(tmp_path), "--tasks", "text", "--mixers", "D", "--seeds", "1"]
    mixers_accuracy.train(mixers.parsed([*common, "--texts", str(texts)]))
    del ROW_TASKS["text"]
    found = mixers_accuracy.learnt(mixers.parsed([*common, "--only", "page"]))
    assert len(found["delta_net"]["text"]["losses"]) == 1


def test_the_papers_mixers_come_first_and_a_seed_after_the_other(tmp_path):
    options = mixers.parsed(
        ["--work", str(tmp_path), "--mixers", "s4d,A,D", "--tasks", "mqar,parity", "--seeds", "2"]
    )
    assert list(mixers_accuracy.plan(options)) == [
        (task, mixer, seed)
        for seed in (0, 1)
        for group in (("delta_net", "attention"), ("s4d",))
        for task in ("mqar", "parity")
        for mixer in group
    ]


def test_the_page_shows_what_is_there_and_only_that(tmp_path, monkeypatch):
    """One mixer trained and measured, one not: its cells are dashes."""
    tiny = {"steps": 1, "batch_size": 2, "test_rows": 4, "layers": 1}
    for task in ("overwrite", "mqar"):  # the rate of the one is chosen on the other
        monkeypatch.setitem(mixers_accuracy._BUDGETS, task, tiny)
    common = ["--work", str(tmp_path), "--tasks", "overwrite", "--lengths", "32,64", "--rounds", "1"]
    first = mixers.parsed([*common, "--mixers", "D", "--seeds", "1"])
    mixers_accuracy.train(first)
    mixers_cost.measure(first)
    known = json.loads((tmp_path / mixers_cost.COSTS_NAME).read_text())["delta_net"]
    assert known["state_32"] == known["state_64"] == 4 * (2 * 64 * 64 + 3 * 128 * 3)
    assert known["train_64"] > 0
    assert set(known["rounds"]) == {"0_32", "0_64"}
    mixers_cost.measure(first)  # nothing is measured again
    assert json.loads((tmp_path / mixers_cost.COSTS_NAME).read_text())["delta_net"] == known
    both = mixers.parsed([*common, "--mixers", "D,A", "--seeds", "2"])
    text = mixers.page(both, mixers_accuracy.learnt(both), mixers_cost.costs(both), "head")
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| `")}
    assert len([line for line in text.splitlines() if line.startswith("| `attention`") and "–" in line]) == 2
    assert "–" not in lines["`delta_net`"]


def test_a_cell_of_text_is_in_bits_with_the_range_over_seeds():
    nat = math.log(2)
    found = {
        "accuracy": 0.5,
        "least": 0.4,
        "greatest": 0.6,
        "loss": 3 * nat,
        "losses": [2.5 * nat, 3.5 * nat],
    }
    assert mixers.learnt_cell("text", found | {"n": 2}) == "3.00 (2.50-3.50)"
    assert mixers.learnt_cell("text", found | {"n": 1}) == "3.00"
    assert mixers.learnt_cell("mqar", found | {"n": 2}) == "0.50 (0.40-0.60)"


def test_a_stack_is_better_where_every_seed_is():
    text = {"D*4": [3.0, 3.1], "M*4": [2.8, 2.9], "MD*2": [2.9, 3.05], "n-gram head, D*3": []}
    assert [stacks.verdict("text", stack, text) for stack in text] == ["", ", better", "", ""]
    recall = {"D*4": [0.8, 0.9], "M*4": [0.1, 0.2]}
    assert stacks.verdict("joint_recall", "M*4", recall) == ", worse"


def test_stacks_have_four_layers():
    for stack in stacks.STACKS:
        names = [type(block.attn).__name__ for block in stacks.model_of(stack).layers]
        assert len(names) == 4
        assert ("n-gram" in stack) == (names[0] == "NgramHead")


def test_a_verdict_follows_from_the_seeds():
    assert frame.ordered([0.9, 0.8], [0.7, 0.1]) == frame.HOLDS
    assert frame.ordered([0.9, 0.5], [0.6, 0.1]) == frame.PARTLY
    assert frame.ordered([0.5], [0.5]) == frame.FAILS
    assert frame.ordered([], [0.5]) == frame.OPEN
    assert frame.all_of([frame.HOLDS, frame.FAILS]) == frame.PARTLY
    assert frame.all_of([frame.HOLDS, frame.OPEN]) == frame.OPEN


def test_seeds_are_counted_in_the_figures():
    finding = frame.Finding((), [], frame.HOLDS, "", 3, {"a": {"x": [1.0], "y": [1.0, 2.0, 3.0]}, "b": []})
    assert frame.seeds_of(finding) == "1-3"
    finding.figures = {"a": [1.0, 2.0]}
    assert frame.seeds_of(finding) == "2"


def test_a_claim_reads_the_records_of_the_mixers_table(tmp_path):
    """Planted records of two mixers, of the settings of the table: the claim finds them and trains nothing."""
    options = Namespace(work=tmp_path, seeds=1, only_records=True)

    def plant(task, name, rate, right, validation):
        settings = mixers_accuracy.settings_of(task, name, lr=rate)
        path = run._part_path(tmp_path / task, ROW_TASKS[task](), name, 0, settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        row = {"mixer": name, "length": 64, "accuracy": right, "loss": 1.0, "validation_loss": validation}
        path.write_text(json.dumps([row]))

    for name, right in (("delta_net", 0.9), ("linear_attention", 0.2), ("gated_delta_net", 0.8)):
        for rate, validation in ((1e-2, 2.0), (3e-3, 1.0)):
            plant("mqar", name, rate, 0.5, validation)
            plant("overwrite", name, rate, right if rate == 3e-3 else 0.99, 1.0)
    found = overwrite.find(options)
    assert found.verdict == frame.OPEN  # others are not there
    assert ["`delta_net`", "0.90"] in found.rows
    assert ["`mamba2`", "–"] in found.rows
    text = frame.page(overwrite.CLAIM, found, {"command": "c", "machine": "m"})
    assert "| `linear_attention` | 0.20 |" in text


def test_the_variant_with_both_parts_is_delta_net():
    plain = DeltaNetConfig(num_heads=2, head_dim=8).build(16)
    for number, parameter in enumerate(plain.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(number))
    variant = variants.VariantConfig(num_heads=2, head_dim=8).build(16)
    variant.load_state_dict(plain.state_dict())
    x = torch.randn(2, 9, 16)
    torch.testing.assert_close(variant(x).y, plain(x).y)
    changed = variants.SumOfElu(num_heads=2, head_dim=8).build(16)
    changed.load_state_dict(plain.state_dict())
    assert (changed(x).y - plain(x).y).abs().max() > 0.1


def test_a_passkey_row_holds_what_it_asks_for(texts):
    passkey_far.PasskeyInProse.texts = mixers_accuracy.text_rows(texts)()
    for kind in (passkey_far.PasskeyInNoise, passkey_far.PasskeyInProse):
        rows = kind().test_rows(np.random.default_rng(2), 20, 256)
        for tokens, labels in zip(rows.tokens, rows.labels, strict=True):
            (mark,), (asked,) = np.nonzero(tokens == 1)[0], np.nonzero(tokens == 2)[0]
            digits = tokens[mark + 1 : mark + 4]
            assert (labels[asked:] == digits).all()
            assert (tokens[asked + 1 :] == digits[:-1]).all()
            assert (labels != -100).sum() == 3
            assert mark < 64


def test_chunk_form_and_steps_agree_before_they_are_compared(monkeypatch):
    monkeypatch.setattr(chunkwise, "_ROUNDS", 1)
    assert min(chunkwise.seconds(24, 64)) > 0
    monkeypatch.setattr(chunkwise, "delta_rule", lambda q, k, v, beta: (torch.zeros_like(q), None))
    with pytest.raises(SystemExit, match="differ"):
        chunkwise.seconds(24, 64)


def test_an_interval_holds_a_difference_that_is_there():
    rng = np.random.default_rng(3)
    low, high = repeat.interval(rng.normal(0, 1, 100), rng.normal(2, 1, 100))
    # The standard error of the difference is 0.14.
    assert 0.4 < high - low < 0.75
    assert 1.4 < low < high < 2.6


def test_the_page_of_claims_has_every_claim():
    """Each module that runs a claim is in docs/claims.md, with its command."""
    text = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    modules = [
        path for path in (ROOT / "benchmarks" / "claims").glob("*.py") if "CLAIM = " in path.read_text()
    ]
    assert len(modules) >= 10
    for path in modules:
        assert f"benchmarks.claims.{path.stem} " in text, path.stem
