"""transformers' Trainer: padded and flattened rows, accumulation, resuming, checkpointing, compiling, evaluation."""

import numpy as np
import pytest
from transformers import DataCollatorWithFlattening

from peers import tiny
from peers.processes import fresh
from peers.training import logged, rows, trainer

PACKAGES = ("transformers", "accelerate")


@pytest.mark.parametrize("mixers", ["D", "GA"])
def test_gradient_checkpointing_in_a_fresh_process(mixers, tmp_path):
    result = fresh("trainer_checkpointed", mixers, tmp_path)
    assert len(result["plain"]) == 3
    np.testing.assert_allclose(result["checkpointed"], result["plain"], rtol=1e-4)


@pytest.mark.parametrize("settings", [{"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}])
@pytest.mark.parametrize("mixers", ["DS", "ML"])
def test_accumulated_steps_are_whole_steps(mixers, settings, tmp_path):
    accumulated = logged(trainer(tiny.model(mixers), tmp_path, **settings))
    whole = logged(trainer(tiny.model(mixers), tmp_path))
    np.testing.assert_allclose(accumulated, whole, rtol=1e-3)


@pytest.mark.parametrize("return_seq_idx", [False, True])
@pytest.mark.parametrize("return_flash_attn_kwargs", [False, True])
@pytest.mark.parametrize("mixers", ["DS", "GA", "MC"])
def test_flattened_rows_are_padded_rows(mixers, return_flash_attn_kwargs, return_seq_idx, tmp_path):
    collator = DataCollatorWithFlattening(
        return_flash_attn_kwargs=return_flash_attn_kwargs, return_seq_idx=return_seq_idx
    )
    flat = logged(trainer(tiny.model(mixers), tmp_path, data_collator=collator))
    padded = logged(trainer(tiny.model(mixers), tmp_path))
    np.testing.assert_allclose(flat, padded, rtol=1e-3)


def test_a_run_resumed_is_the_run(tmp_path):
    whole = logged(trainer(tiny.model(), tmp_path, max_steps=4, save_strategy="steps", save_steps=2))
    resumed = trainer(tiny.model(), tmp_path, max_steps=4, save_strategy="no")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    again = [
        [entry["loss"], float(entry["grad_norm"])]
        for entry in resumed.state.log_history
        if "grad_norm" in entry
    ]
    np.testing.assert_allclose(again, whole, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"bf16": True}, {"label_smoothing_factor": 0.1}, {"neftune_noise_alpha": 5}, {"optim": "adafactor"}],
    ids=lambda settings: next(iter(settings)),
)
def test_a_setting_trains(settings, tmp_path):
    found = logged(trainer(tiny.model(), tmp_path, **settings))
    assert np.isfinite(found).all()
    assert found[-1][0] < found[0][0]


def test_evaluation_and_prediction(tmp_path):
    run = trainer(tiny.model(), tmp_path, per_device_eval_batch_size=1)
    run.compute_metrics = lambda found: {
        "right": float((found.predictions[:, :-1].argmax(-1) == found.label_ids[:, 1:]).mean())
    }
    before = run.evaluate()
    logged(run)
    after = run.evaluate()
    assert after["eval_loss"] < before["eval_loss"]
    assert after["eval_right"] > before["eval_right"]
    predicted = run.predict(rows(2, seed=9))
    assert predicted.predictions.shape[-1] == 320


@pytest.mark.parametrize(("mixers", "backend"), [("G", "inductor"), ("DA", "aot_eager"), ("S", "aot_eager")])
def test_compiled_steps_are_eager_steps(mixers, backend, tmp_path):
    run = trainer(tiny.model(mixers), tmp_path, torch_compile=True, torch_compile_backend=backend)
    compiled = logged(run)
    eager = logged(trainer(tiny.model(mixers), tmp_path))
    np.testing.assert_allclose(compiled, eager, rtol=1e-3)
