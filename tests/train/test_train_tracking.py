"""MFU by a count of operations of its own, and sinks that take rows and may fail."""

import sys
import types

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from longlode.core.batch import Batch
from longlode.core.errors import BackendError
from longlode.core.records import read_jsonl, read_record
from longlode.ops.matrix_rate import matrix_rate
from longlode.train import build_model, train
from longlode.train.sinks import Sinks
from longlode.train.usage import Usage


def test_the_matrix_rate_is_one_of_this_machine():
    rate = matrix_rate("cpu", torch.float32, torch.get_num_threads())
    assert 1e8 < rate < 1e14


@pytest.mark.parametrize("packed", [False, True])
def test_operations_of_a_step(tiny, packed):
    model = build_model(tiny.recipe(mixers="DA"), 24)
    batch = tiny.batch(0, packed)
    lengths = [16] * 4 if not packed else np.diff(batch.cu_seqlens).tolist()
    expected = 3 * sum(length * model.flops_per_token(length) for length in lengths)
    usage = Usage(model, 1e9)
    assert usage.step_flops(batch) == pytest.approx(expected, rel=1e-12)
    assert usage.mfu(batch, 2.0) == pytest.approx(expected / 2e9, rel=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_operations_of_another_model_are_those_of_its_matrices(tied):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=24, tie_word_embeddings=tied, **sizes))
    matrices = 4 * 16 * 16 + 3 * 16 * 32 + 16 * 24 + 3 * 16  # attention, MLP, head, norms
    tokens = np.zeros((2, 5), dtype=np.int64)
    assert Usage(model, 1.0).step_flops(Batch(tokens, tokens)) == 3 * 10 * 2 * matrices


def test_rows_and_record_have_the_rate(tiny, tmp_path):
    recipe = tiny.recipe("run.steps=2")
    model = tiny.model(recipe)
    train(model, tiny.batches, recipe, tmp_path / "run", data_fingerprint="d", flops_per_second=1e9)
    row = read_jsonl(tmp_path / "run" / "metrics.jsonl")[-1]
    seconds = row["tokens"] / 2 / row["tokens_per_second"]
    assert row["mfu"] == pytest.approx(Usage(model, 1e9).mfu(tiny.batch(1), seconds), rel=0.1)
    assert read_record(tmp_path / "run", "run")["matrix_flops_per_second"] == 1e9


class FakeTrackio(types.ModuleType):
    """Stands for the package: keeps what it gets, and fails at the step `fails_at`."""

    def __init__(self, fails_at=None):
        super().__init__("trackio")
        self.calls, self.fails_at = [], fails_at

    def init(self, **options):
        self.calls.append(("init", options))

    def log(self, numbers, step):
        if step == self.fails_at:
            raise OSError("no room")
        self.calls.append((step, numbers))

    def finish(self):
        self.calls.append(("finish", {}))


def test_trackio_gets_the_rows_and_may_fail(tiny, tmp_path, monkeypatch, caplog):
    package = FakeTrackio()
    monkeypatch.setitem(sys.modules, "trackio", package)
    recipe = tiny.recipe("run.steps=3", 'run.track=["trackio"]')
    train(
        tiny.model(recipe),
        tiny.batches,
        recipe,
        tmp_path / "mine",
        data_fingerprint="d",
        heldout=tiny.heldout,
    )
    assert package.calls[0] == ("init", {"project": tmp_path.name, "name": "mine", "resume": "allow"})
    assert package.calls[-1][0] == "finish"
    rows = read_jsonl(tmp_path / "mine" / "metrics.jsonl")
    sent = package.calls[1:-1]
    assert [step for step, _ in sent] == [row["step"] for row in rows]
    for (_, numbers), row in zip(sent, rows, strict=True):
        assert numbers == {name: value for name, value in row.items() if name != "step"}
    package.fails_at = 2
    summary = train(tiny.model(recipe), tiny.batches, recipe, tmp_path / "other", data_fingerprint="d")
    assert summary.status == "finished"
    assert "trackio takes no more metrics" in caplog.text


def test_a_sink_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(BackendError, match=r"longlode\[track\]"):
        Sinks(["trackio"], tmp_path, 0)


def test_tensorboard_events_can_be_read_back(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for step, first in ((0, 1), (2, 3)):  # the second session repeats from step 3 on
        sinks = Sinks(["tensorboard"], tmp_path, step)
        for number in range(first, 5):
            sinks.log({"step": number, "loss": number / 2 + step, "skipped": True, "stage": "a"})
        sinks.close()
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert found.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [
        (1, 0.5),
        (2, 1.0),
        (3, 3.5),
        (4, 4.0),
    ]
