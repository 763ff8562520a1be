"""Checkpoints: killed, torn, or out of space, the newest whole one is found and nothing older is lost."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from longlode.core.errors import CheckpointError
from longlode.core.records import read_jsonl, read_record
from longlode.train import checkpoint, train
from longlode.train.checkpoint import (
    RunState,
    find_problem,
    load_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    run_identity,
    save_checkpoint,
)
from longlode.train.loop import training_step
from longlode.train.optim import build_optimizer


class Killed(BaseException):
    """Stands for kill -9: no handler of ours may catch it."""


class Trained:
    """A model some steps on, that can save itself and be compared with what a checkpoint gives back."""

    def __init__(self, tiny, folder, *overrides):
        self.tiny, self.folder = tiny, folder
        self.recipe = tiny.recipe(*overrides)
        self.identity = run_identity(self.recipe, tiny.fingerprint)
        self.model = tiny.model(self.recipe)
        self.optimizer = build_optimizer(self.model, self.recipe.optim)
        self.state = RunState()

    def step(self):
        batch = self.tiny.batch(self.state.step)
        training_step(self.model, batch, self.optimizer, 0.01, self.recipe)
        self.state.step += 1
        self.state.tokens += batch.num_tokens

    def save(self):
        return save_checkpoint(self.folder, self.model, self.optimizer, self.state, self.identity)

    def snapshot(self):
        moments = {
            f"{kind}.{name}": value.clone()
            for name, parameter in self.model.named_parameters()
            for kind, value in self.optimizer.state[parameter].items()
        }
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()} | moments


def assert_loads(trained, path, expected):
    other = Trained(trained.tiny, trained.folder)
    state = load_checkpoint(path, other.model, other.optimizer)
    found = other.snapshot()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    return state


@pytest.fixture
def trained(tiny, tmp_path):
    trained = Trained(tiny, tmp_path / "checkpoints")
    trained.step()
    return trained


def test_a_checkpoint_gives_back_everything(trained):
    path = trained.save()
    assert find_problem(path) is None
    assert {p.name for p in path.iterdir()} == {
        "model.safetensors",
        "optim.safetensors",
        "state.json",
        "manifest.json",
    }
    drawn = torch.rand(3)
    assert assert_loads(trained, path, trained.snapshot()) == trained.state
    assert torch.equal(torch.rand(3), drawn)


def test_tied_weights_are_saved_once_and_stay_tied(tiny, tmp_path):
    trained = Trained(tiny, tmp_path, "model.tie_word_embeddings=true")
    trained.step()
    path = trained.save()
    other = Trained(tiny, tmp_path, "model.tie_word_embeddings=true")
    load_checkpoint(path, other.model, other.optimizer)
    assert other.model.lm_head.weight is other.model.model.embeddings.weight
    assert torch.equal(other.model.lm_head.weight, trained.model.lm_head.weight)


DAMAGES = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "deleted": lambda path: path.unlink(),
    "one bit": lambda path: path.write_bytes(flip_bit(path.read_bytes())),
}


def flip_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["model.safetensors", "optim.safetensors", "state.json", "manifest.json"])
def test_a_torn_newest_checkpoint_is_reported_and_passed_over(trained, name, damage):
    older = trained.save()
    expected = trained.snapshot()
    trained.step()
    newer = trained.save()
    assert newest_checkpoint(trained.folder) == (newer, [])
    DAMAGES[damage](newer / name)
    found, skipped = newest_checkpoint(trained.folder)
    assert found == older
    assert len(skipped) == 1
    assert skipped[0].startswith("step-00000002: ")
    assert damage == "one bit" or name in skipped[0]
    assert_loads(trained, found, expected)


def test_no_whole_checkpoint_is_an_error_not_a_new_start(trained):
    assert newest_checkpoint(trained.folder) == (None, [])
    (trained.save() / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"step-00000001: state.json is missing\n.*new run folder"):
        newest_checkpoint(trained.folder)


POINTS = [
    (checkpoint, "save_file"),
    (checkpoint, "write_json"),
    (checkpoint, "_sync_and_describe"),
    (checkpoint, "sync_folder"),
    (checkpoint, "find_problem"),
    (Path, "mkdir"),
    (Path, "rename"),
    (Path, "replace"),
    (os, "fsync"),
    (shutil, "rmtree"),
]


def count_and_stop(monkeypatch, stop_at, stop):
    """Count every write point; before the one numbered `stop_at`, call `stop`."""
    count = [0]

    def wrap(original):
        def counted(*args, **kwargs):
            if count[0] == stop_at:
                stop(args)
            count[0] += 1
            return original(*args, **kwargs)

        return counted

    for owner, name in POINTS:
        monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))
    return count


def kill(args):
    # Half a file is what a kill in the middle of a write leaves behind.
    for path in (arg for arg in args if isinstance(arg, Path) and arg.suffix in (".safetensors", ".json")):
        if not path.exists():
            path.write_bytes(b"half a fi")
    raise Killed


def test_a_kill_at_any_write_point_loses_nothing(trained, monkeypatch):
    older = trained.save()
    before = trained.snapshot()
    trained.step()
    after = trained.snapshot()
    point, outcomes = 0, []
    while True:
        with monkeypatch.context() as patch:
            count = count_and_stop(patch, point, kill)
            try:
                trained.save()
                assert count[0] == point
                break
            except Killed:
                pass
        found, skipped = newest_checkpoint(trained.folder)
        assert skipped == []
        outcomes.append(found.name)
        assert_loads(trained, found, before if found == older else after)
        shutil.rmtree(trained.folder / "step-00000002", ignore_errors=True)
        point += 1
    assert point >= 15
    assert outcomes[0] == "step-00000001"
    assert outcomes[-1] == "step-00000002"
    assert sorted(path.name for path in trained.folder.iterdir()) == ["step-00000001", "step-00000002"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left")]
)
@pytest.mark.parametrize("point", [("save_file", 0), ("save_file", 1), ("write_json", 0), ("write_json", 1)])
def test_a_full_disk_keeps_the_older_checkpoint(tiny, tmp_path, monkeypatch, point, error):
    recipe = tiny.recipe("run.checkpoint_every=2", "run.steps=4")
    folder = tmp_path / "run"
    name, number = point
    calls = []
    original = getattr(checkpoint, name)

    def full(*args):
        calls.append(args)
        if len(calls) == 2 + number + 1:  # the second checkpoint
            args[[isinstance(arg, Path) for arg in args].index(True)].write_bytes(b"half")
            raise error
        return original(*args)

    monkeypatch.setattr(checkpoint, name, full)
    with pytest.raises(CheckpointError, match=r"No space left.*--resume"):
        train(tiny.model(recipe), tiny.batches, recipe, folder, data_fingerprint="d")
    monkeypatch.undo()
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000002"]
    assert read_record(folder)["status"] == "failed"
    summary = train(tiny.model(recipe), tiny.batches, recipe, folder, data_fingerprint="d", resume=True)
    assert (summary.status, summary.resumed_from) == ("finished", 2)
    assert [row["step"] for row in read_jsonl(folder / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_torn_checkpoint_is_set_aside_and_never_counts_as_kept(tiny, tmp_path, caplog):
    recipe = tiny.recipe("run.checkpoint_every=3", "run.steps=9")
    model = tiny.model(recipe)
    train(model, tiny.batches, recipe, tmp_path, data_fingerprint="d")
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000006", "step-00000009"]
    os.truncate(folder / "step-00000009" / "optim.safetensors", 10)
    other = tiny.model(recipe)
    summary = train(other, tiny.batches, recipe, tmp_path, data_fingerprint="d", resume=True)
    assert summary.resumed_from == 6
    assert "step-00000009: optim.safetensors has 10 bytes" in caplog.text
    assert "step-00000009: optim" in read_record(tmp_path)["skipped_checkpoints"][0]
    names = ["step-00000006", "step-00000009", "unusable-step-00000009"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert torch.equal(model.lm_head.weight, other.lm_head.weight)


def test_pruning_keeps_the_newest(trained):
    for _ in range(4):
        trained.save()
        trained.step()
    prune_checkpoints(trained.folder, 2)
    assert sorted(path.name for path in trained.folder.iterdir()) == ["step-00000003", "step-00000004"]


def test_the_rest_of_a_checkpoint_that_was_being_removed_goes_at_the_next_start(tiny, tmp_path):
    recipe = tiny.recipe("run.checkpoint_every=3", "run.steps=9")
    train(tiny.model(recipe), tiny.batches, recipe, tmp_path, data_fingerprint="d")
    half = tmp_path / "checkpoints" / "step-00000003"
    half.mkdir()
    (half / "state.json").write_text("{}")
    train(tiny.model(recipe), tiny.batches, recipe, tmp_path, data_fingerprint="d", resume=True)
    assert sorted(path.name for path in half.parent.iterdir()) == ["step-00000006", "step-00000009"]


def test_a_checkpoint_of_another_model_does_not_load(trained):
    path = trained.save()
    for overrides in (("model.hidden_size=32",), ("model.mixers=DDD",), ("model.mixers=G*2",)):
        other = Trained(trained.tiny, trained.folder, *overrides)
        with pytest.raises(CheckpointError, match="does not fit this model"):
            load_checkpoint(path, other.model, other.optimizer)


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
from conftest import TinyRun
from longlode.train import train
tiny = TinyRun()
recipe = tiny.recipe("run.checkpoint_every=1", "run.steps=100000")
train(tiny.model(recipe), tiny.batches, recipe, sys.argv[2], data_fingerprint="d")
"""


def test_a_real_kill_minus_nine(tiny, tmp_path):
    folder = tmp_path / "run"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(Path(__file__).parent), str(folder)])
    try:
        deadline = time.monotonic() + 60
        while not (folder / "checkpoints" / "step-00000004").exists() and child.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    done = newest_checkpoint(folder / "checkpoints")[0]
    assert done is not None
    steps = int(done.name.removeprefix("step-")) + 3
    recipe = tiny.recipe("run.checkpoint_every=1", "run.steps=100000")

    def stop(row):
        if row["step"] == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    resumed, straight = tiny.model(recipe), tiny.model(recipe)
    train(resumed, tiny.batches, recipe, folder, data_fingerprint="d", resume=True, on_step=stop)
    train(straight, tiny.batches, recipe, tmp_path / "straight", data_fingerprint="d", on_step=stop)
    for name, tensor in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    rows = [
        [(row["step"], row["loss"]) for row in read_jsonl(path / "metrics.jsonl")]
        for path in (folder, tmp_path / "straight")
    ]
    assert rows[0] == rows[1]
