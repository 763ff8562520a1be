"""The loop: resume is bitwise, bad numbers stop before the optimizer, micro batches change nothing."""

import math
import os
import signal

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from longlode.core.batch import Batch
from longlode.core.errors import BackendError, CheckpointError, ConfigError, InputError, LonglodeError
from longlode.core.processes import machine_tag
from longlode.core.records import read_jsonl, read_record
from longlode.models import LonglodeForCausalLM
from longlode.ops import backends, used_backends
from longlode.train import loop, step, train
from longlode.train.loop import micro_batches, training_step
from longlode.train.objectives import NextToken
from longlode.train.optim import build_optimizer


class Killed(BaseException):
    """Stands for kill -9: no handler of ours may catch it."""


def kill_at(step):
    def on_step(row):
        if row["step"] == step:
            raise Killed

    return on_step


def run(tiny, recipe, folder, batches=None, **options):
    model = tiny.model(recipe)
    summary = train(
        model, batches or tiny.batches, recipe, folder, data_fingerprint=tiny.fingerprint, **options
    )
    return model, summary


def losses(folder):
    return [(row["step"], row["loss"]) for row in read_jsonl(folder / "metrics.jsonl") if "loss" in row]


def assert_same_weights(one, other):
    for (name, a), (_, b) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("mixers", ["D*2", "DS", "GA"])
def test_ten_steps_are_five_a_kill_and_five(tiny, tmp_path, mixers):
    recipe = tiny.recipe(mixers=mixers)
    straight, summary = run(tiny, recipe, tmp_path / "straight", heldout=tiny.heldout)
    assert (summary.status, summary.step, summary.resumed_from) == ("finished", 10, None)
    with pytest.raises(Killed):
        run(tiny, recipe, tmp_path / "broken", on_step=kill_at(8))
    assert [step for step, _ in losses(tmp_path / "broken")] == list(range(1, 9))
    resumed, summary = run(tiny, recipe, tmp_path / "broken", resume=True, heldout=tiny.heldout)
    assert (summary.status, summary.step, summary.resumed_from) == ("finished", 10, 5)
    assert_same_weights(straight, resumed)
    assert losses(tmp_path / "straight") == losses(tmp_path / "broken")
    eval_losses = [
        read_jsonl(tmp_path / name / "metrics.jsonl")[-1]["eval_loss"] for name in ("straight", "broken")
    ]
    assert eval_losses[0] == eval_losses[1] == summary.eval_loss


def test_packed_and_tied_and_accumulated_run_resumes_bitwise(tiny, tmp_path):
    recipe = tiny.recipe("model.tie_word_embeddings=true", "data.packed=true", "data.micro_batch_size=1")
    straight, _ = run(tiny, recipe, tmp_path / "straight", tiny.packed_batches)
    with pytest.raises(Killed):
        run(tiny, recipe, tmp_path / "broken", tiny.packed_batches, on_step=kill_at(6))
    resumed, _ = run(tiny, recipe, tmp_path / "broken", tiny.packed_batches, resume=True)
    assert_same_weights(straight, resumed)
    assert losses(tmp_path / "straight") == losses(tmp_path / "broken")


def test_resume_without_moments_is_noticed(tiny, tmp_path, monkeypatch):
    """The wrong variant of the test above: a checkpoint that forgets AdamW's moments gives other weights."""
    recipe = tiny.recipe()
    straight, _ = run(tiny, recipe, tmp_path / "straight")
    with pytest.raises(Killed):
        run(tiny, recipe, tmp_path / "broken", on_step=kill_at(8))
    load = loop.RunFolder.restore

    def forgetful(self, model, optimizer, resume):
        state = load(self, model, optimizer, resume)
        optimizer.state.clear()
        return state

    monkeypatch.setattr(loop.RunFolder, "restore", forgetful)
    resumed, _ = run(tiny, recipe, tmp_path / "broken", resume=True)
    assert losses(tmp_path / "straight") != losses(tmp_path / "broken")
    assert not torch.equal(straight.lm_head.weight, resumed.lm_head.weight)


def test_loss_falls_and_the_folder_is_complete(tiny, tmp_path):
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")
    (tokenizer / "notes.txt").write_text("not a tokenizer file")
    recipe = tiny.recipe("run.steps=60", "run.eval_every=20", "optim.lr=0.02")
    folder = tmp_path / "run"
    model, summary = run(tiny, recipe, folder, heldout=tiny.heldout, tokenizer_folder=tokenizer)
    rows = read_jsonl(folder / "metrics.jsonl")
    assert rows[0]["loss"] == pytest.approx(math.log(24), abs=0.2)
    assert summary.loss < rows[0]["loss"] - 0.5
    assert [row["step"] for row in rows if "eval_loss" in row] == [20, 40, 60]
    assert summary.eval_loss < rows[0]["loss"] - 0.5
    assert set(rows[0]) == {"step", "tokens", "loss", "lr", "grad_norm", "tokens_per_second", "seconds"}
    assert rows[0]["tokens"] == tiny.batch(0).num_tokens
    record = read_record(folder, "run")
    assert record["status"] == "finished"
    assert record["loss"] == summary.loss
    assert record["recipe"]["optim"]["lr"] == 0.02
    assert record["data_fingerprint"] == tiny.fingerprint
    assert record["num_parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert {path.name for path in (folder / "model").iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert not (folder / "model" / "notes.txt").exists()
    card = (folder / "model" / "README.md").read_text(encoding="utf-8")
    for what in ("| steps | 60 |", f"of {recipe.data.length:,} |", "| 0.02, schedule", tiny.fingerprint[:16]):
        assert what in card
    assert_same_weights(LonglodeForCausalLM.from_pretrained(folder / "model"), model)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_saves(tiny, tmp_path, number):
    def on_step(row):
        if row["step"] == 3:
            os.kill(os.getpid(), number)

    recipe = tiny.recipe()
    before = signal.getsignal(number)
    _, summary = run(tiny, recipe, tmp_path / "run", on_step=on_step)
    assert (summary.status, summary.step, summary.model_folder) == ("interrupted", 3, None)
    assert signal.getsignal(number) == before
    assert read_record(tmp_path / "run")["status"] == "interrupted"
    resumed, summary = run(tiny, recipe, tmp_path / "run", resume=True)
    assert (summary.status, summary.resumed_from) == ("finished", 3)
    straight, _ = run(tiny, recipe, tmp_path / "straight")
    assert_same_weights(straight, resumed)


def test_resuming_a_finished_run_changes_nothing(tiny, tmp_path):
    recipe = tiny.recipe()
    first, _ = run(tiny, recipe, tmp_path / "run", heldout=tiny.heldout)
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    again, summary = run(tiny, recipe, tmp_path / "run", heldout=tiny.heldout, resume=True)
    assert_same_weights(first, again)
    assert (summary.status, summary.step) == ("finished", 10)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == metrics


def test_more_steps_may_be_added_on_resume(tiny, tmp_path):
    constant = "optim.schedule=constant"
    run(tiny, tiny.recipe(constant), tmp_path / "run")
    longer, _ = run(tiny, tiny.recipe(constant, "run.steps=14"), tmp_path / "run", resume=True)
    straight, _ = run(tiny, tiny.recipe(constant, "run.steps=14"), tmp_path / "straight")
    assert_same_weights(longer, straight)


def test_a_folder_in_use_is_not_started_over(tiny, tmp_path):
    recipe = tiny.recipe("run.steps=2")
    run(tiny, recipe, tmp_path / "run")
    with pytest.raises(InputError, match="--resume"):
        run(tiny, recipe, tmp_path / "run")
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match=r"letter\.txt"):
        run(tiny, recipe, stranger, resume=True)
    _, summary = run(tiny, recipe, tmp_path / "new", resume=True)
    assert summary.resumed_from is None


def test_another_recipe_or_other_data_is_refused(tiny, tmp_path):
    run(tiny, tiny.recipe("run.steps=2"), tmp_path / "run")
    changed = tiny.recipe("run.steps=4", "optim.lr=0.02", "run.log_every=2", "model.mixers=DD")
    with pytest.raises(CheckpointError) as caught:
        run(tiny, changed, tmp_path / "run", resume=True)
    text = str(caught.value)
    assert "optim.lr: 0.01 -> 0.02" in text
    assert "model.mixers: 'D*2' -> 'DD'" in text
    assert "run." not in text
    tiny.fingerprint = "other data"
    with pytest.raises(CheckpointError, match="other data"):
        run(tiny, tiny.recipe("run.steps=4"), tmp_path / "run", resume=True)


def poison(model):
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan


def moments_are_finite(optimizer):
    return all(bool(value.isfinite().all()) for state in optimizer.state.values() for value in state.values())


def test_nan_stops_the_run_before_the_optimizer(tiny, tmp_path):
    recipe = tiny.recipe("run.checkpoint_every=3")
    model = tiny.model(recipe)

    def poison_after_four(row):
        if row["step"] == 4:
            poison(model)
            before.update({name: tensor.clone() for name, tensor in model.state_dict().items()})

    before = {}
    with pytest.raises(LonglodeError, match=r"Step 5 \(batch 4 .* loss nan .* checkpoint is of step 3"):
        train(
            model,
            tiny.batches,
            recipe,
            tmp_path,
            data_fingerprint=tiny.fingerprint,
            on_step=poison_after_four,
        )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.nan_to_num(), before[name].nan_to_num()), name
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
    record = read_record(tmp_path, "run")
    assert (record["status"], record["steps"]) == ("failed", 5)
    assert losses(tmp_path)[-1] == (5, None)
    resumed, summary = run(tiny, recipe, tmp_path, resume=True)
    assert (summary.status, summary.resumed_from) == ("finished", 3)
    straight, _ = run(tiny, recipe, tmp_path / "straight")
    assert_same_weights(straight, resumed)


def test_moments_stay_finite_only_because_of_the_check(tiny, monkeypatch):
    recipe = tiny.recipe()
    model = tiny.model(recipe)
    optimizer = build_optimizer(model, recipe.optim)
    assert training_step(model, tiny.batch(0), optimizer, 0.01, recipe).taken
    poison(model)
    result = training_step(model, tiny.batch(1), optimizer, 0.01, recipe)
    loss, taken = result.loss, result.taken
    assert (math.isnan(loss), taken) == (True, False)
    assert moments_are_finite(optimizer)
    monkeypatch.setattr(step, "all_ranks_finite", lambda *values, world: True)  # the wrong variant
    training_step(model, tiny.batch(1), optimizer, 0.01, recipe)
    assert not moments_are_finite(optimizer)


def test_skipped_steps_are_counted_and_bounded(tiny, tmp_path):
    recipe = tiny.recipe("optim.on_nonfinite=skip", "optim.max_skips=2")
    weights = []

    def run_with_bad_steps(bad, folder):
        calls = iter(range(100))
        model = tiny.model(recipe)
        model.model.embeddings.register_forward_hook(
            lambda module, inputs, output: output * math.nan if next(calls) in bad else output
        )
        weights.clear()
        return train(
            model,
            tiny.batches,
            recipe,
            folder,
            data_fingerprint="d",
            on_step=lambda row: weights.append(model.lm_head.weight.detach().clone()),
        )

    summary = run_with_bad_steps({2, 6}, tmp_path / "two")
    assert (summary.status, summary.step, summary.skips) == ("finished", 10, 2)
    rows = read_jsonl(tmp_path / "two" / "metrics.jsonl")
    assert [row["step"] for row in rows if row.get("skipped")] == [3, 7]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[2], weights[3])
    with pytest.raises(LonglodeError, match=r"max_skips = 2"):
        run_with_bad_steps({2, 3, 6}, tmp_path / "three")


def gradients(tiny, recipe, batch):
    """Gradients of one step in float64, read off plain descent with learning rate 1."""
    model = tiny.model(recipe).double()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    result = training_step(model, batch, optimizer, 1.0, recipe)
    loss, norm = result.loss, result.grad_norm
    moved = {name: before[name] - parameter.detach() for name, parameter in model.named_parameters()}
    return loss, norm, moved


@pytest.mark.parametrize("packed", [False, True])
def test_micro_batches_add_up_to_the_batch(tiny, packed):
    batch = tiny.batch(0, packed)
    parts = list(micro_batches(batch, 1, 16))
    assert len(parts) > 2
    assert len({part.num_tokens for part in parts}) > 1, (
        "parts must weigh differently for this test to mean something"
    )
    whole = gradients(tiny, tiny.recipe("optim.clip_norm=none"), batch)
    split = gradients(tiny, tiny.recipe("optim.clip_norm=none", "data.micro_batch_size=1"), batch)
    assert whole[0] == pytest.approx(split[0], rel=1e-12)
    assert whole[1] == pytest.approx(split[1], rel=1e-10)
    for name, gradient in whole[2].items():
        torch.testing.assert_close(split[2][name], gradient, rtol=0, atol=1e-10)
    # The wrong variant, the mean of the parts' means, is another number.
    model = tiny.model(tiny.recipe()).double()
    means = [NextToken().losses(model, part).summed.item() / part.num_tokens for part in parts]
    assert abs(np.mean(means) - whole[0]) > 1e-6


def test_packed_parts_end_at_document_edges(tiny):
    batch = tiny.batch(0, packed=True)
    parts = list(micro_batches(batch, 2, 16))
    assert [part.cu_seqlens.tolist() for part in parts] == [[0, 9, 13], [0, 27], [0, 24]]
    assert np.concatenate([part.tokens for part in parts], axis=1).tolist() == batch.tokens.tolist()
    assert sum(part.num_tokens for part in parts) == batch.num_tokens


def test_clipping_shortens_the_gradient_to_the_limit(tiny):
    _, norm, moved = gradients(tiny, tiny.recipe("optim.clip_norm=0.01"), tiny.batch(0))
    assert norm > 0.01
    assert torch.stack([part.norm() for part in moved.values()]).norm().item() == pytest.approx(
        0.01, rel=1e-4
    )


def test_time_limits(tiny, tmp_path):
    by_steps = tiny.recipe("run.max_seconds=1e-9", "run.steps=1000")
    _, summary = run(tiny, by_steps, tmp_path / "steps")
    assert (summary.status, summary.step) == ("time_limit", 0)
    # Limit of each session: the same command again goes on.
    _, summary = run(tiny, tiny.recipe("run.steps=3"), tmp_path / "steps", resume=True)
    assert (summary.status, summary.step) == ("finished", 3)
    by_time = tiny.recipe("run.steps=none", "run.max_seconds=0.3", "optim.schedule_by=time")
    _, summary = run(tiny, by_time, tmp_path / "time")
    assert summary.status == "finished"
    assert summary.step > 2
    rows = read_jsonl(tmp_path / "time" / "metrics.jsonl")
    assert rows[-1]["lr"] < 0.5 * max(row["lr"] for row in rows)
    assert (tmp_path / "time" / "model" / "model.safetensors").exists()
    _, summary = run(tiny, by_time, tmp_path / "time", resume=True)
    assert summary.step == rows[-1]["step"], "a run by time is over when its time is over"


def test_a_step_without_labels_is_an_error(tiny, tmp_path):
    def ends(step):
        yield tiny.batch(step)

    with pytest.raises(InputError, match="no labels for step 2"):
        run(tiny, tiny.recipe(), tmp_path / "ends", ends)

    def empty(step):
        yield Batch(tiny.batch(0).tokens, np.full_like(tiny.batch(0).labels, -100))

    with pytest.raises(InputError, match="no labels for step 1"):
        run(tiny, tiny.recipe(), tmp_path / "empty", empty)


def test_autocast_trains_and_keeps_weights_in_float32(tiny, tmp_path):
    model, summary = run(tiny, tiny.recipe("run.dtype=bfloat16", "run.steps=3"), tmp_path / "run")
    assert model.lm_head.weight.dtype == torch.float32
    exact, _ = run(tiny, tiny.recipe("run.steps=3"), tmp_path / "exact")
    assert not torch.equal(model.lm_head.weight, exact.lm_head.weight)
    torch.testing.assert_close(model.lm_head.weight, exact.lm_head.weight, rtol=0, atol=0.05)
    assert summary.loss == pytest.approx(losses(tmp_path / "exact")[-1][1], rel=0.02)


def test_settings_hold_during_the_run_and_are_put_back(tiny, tmp_path):
    seen = []

    def on_step(row):
        seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))

    outside = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    recipe = tiny.recipe("run.threads=2", "run.deterministic=true", "run.steps=1")
    torch.use_deterministic_algorithms(False)
    try:
        run(tiny, recipe, tmp_path / "run", on_step=on_step)
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(outside[1])
    assert seen == [(2, True)]
    assert torch.get_num_threads() == outside[0]
    assert read_record(tmp_path / "run")["threads"] == 2


def test_an_absent_device_is_an_error(tiny):
    with pytest.raises(BackendError, match="device 'gpu'"):
        tiny.model(tiny.recipe("run.device=gpu"))
    with pytest.raises(ConfigError):
        tiny.model(tiny.recipe(mixers="DX"))


def test_a_second_session_of_one_run_is_refused(tiny, tmp_path):
    recipe, refused = tiny.recipe(), []

    def on_step(row):
        if row["step"] == 7:
            with pytest.raises(InputError, match=f"process {os.getpid()} "):
                run(tiny, recipe, tmp_path / "run", resume=True)
            refused.append(row["step"])

    disturbed, _ = run(tiny, recipe, tmp_path / "run", on_step=on_step)
    assert refused == [7]
    straight, _ = run(tiny, recipe, tmp_path / "straight")
    assert_same_weights(disturbed, straight)
    assert losses(tmp_path / "run") == losses(tmp_path / "straight")
    assert not (tmp_path / "run/.lock").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_killed_in_its_first_record_can_be_begun_again(tiny, tmp_path, resume):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    leftover = folder / f".record.json.{machine_tag()}-{os.getpid()}-1.tmp"
    leftover.write_bytes(b'{"kind": "ru')
    _, summary = run(tiny, tiny.recipe("run.steps=1"), folder, resume=resume)
    assert (summary.status, summary.resumed_from) == ("finished", None)
    assert not leftover.exists()


def test_facts_of_the_data_are_kept(tiny, tmp_path):
    run(tiny, tiny.recipe("run.steps=1"), tmp_path, data_facts={"shards": ["s"], "verified": True})
    assert read_record(tmp_path)["data"] == {"shards": ["s"], "verified": True}


def test_the_record_names_the_backends_that_were_used(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "_used", {})  # other tests of this process used others
    _, _ = run(tiny, tiny.recipe("run.steps=1"), tmp_path / "run")
    found = read_record(tmp_path / "run")["backends"]
    assert found == used_backends()
    assert set(found["delta_rule"]) <= {"native", "chunkwise"}
    assert found["delta_rule"]
    # A session that has no step left to take uses none, and forgets none.
    monkeypatch.setattr(backends, "_used", {})
    run(tiny, tiny.recipe("run.steps=1"), tmp_path / "run", resume=True)
    assert read_record(tmp_path / "run")["backends"] == found


def test_a_full_disk_in_the_export_is_said(tiny, tmp_path, monkeypatch):
    def full(self, *arguments, **options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    recipe = tiny.recipe("run.steps=1")
    model = tiny.model(recipe)
    monkeypatch.setattr(type(model), "save_pretrained", full)
    with pytest.raises(InputError, match="No space left"):
        train(model, tiny.batches, recipe, tmp_path / "run", data_fingerprint="d")
    assert read_record(tmp_path / "run")["status"] == "failed"
