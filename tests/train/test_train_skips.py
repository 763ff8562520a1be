"""Steps that are left out: spikes by six deviations, what is written of them, and steps run again."""

import json
import math

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from longlode.api.training import replay_run, train_run
from longlode.api.training_data import open_run_data
from longlode.cli.commands import app
from longlode.core.errors import InputError, LonglodeError
from longlode.core.records import read_jsonl, read_record
from longlode.packing import open_shards
from longlode.packing.by_name import pack
from longlode.train import Recipe, train
from longlode.train.checkpoint import checkpoint_folders
from longlode.train.replay import replay
from longlode.train.skips import NO_LIMITS, Limits, spike_limits

SPIKES = ("optim.spike_sigma=6", "run.steps=39", "run.checkpoint_every=35", "optim.schedule=constant")


class Killed(BaseException):
    """Stands for kill -9."""


def test_limits_are_mean_and_deviations(tiny):
    optim = tiny.recipe("optim.spike_sigma=6").optim
    rng = np.random.default_rng()
    recent = [tuple(pair) for pair in rng.normal((4.0, 1.0), 0.3, (100, 2)).tolist()]
    found = spike_limits(optim, recent)
    for value, column in ((found.loss, 0), (found.grad_norm, 1)):
        numbers = [pair[column] for pair in recent]
        mean = math.fsum(numbers) / 100
        deviation = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / 100)
        assert value == pytest.approx(mean + 6 * deviation, rel=1e-12)
    assert spike_limits(optim, recent[:31]) == NO_LIMITS
    assert spike_limits(tiny.recipe().optim, recent) == NO_LIMITS
    assert spike_limits(optim, [(2.0, 1.0)] * 40) == Limits(pytest.approx(2.12), pytest.approx(1.06))


@pytest.mark.parametrize(
    ("loss", "norm", "spike"), [(1, 1, False), (2.1, 1, True), (1, 3.1, True), (2, 3, False)]
)
def test_either_number_makes_a_spike(loss, norm, spike):
    assert Limits(2.0, 3.0).exceeded(loss, norm) is spike


def spiky(tiny, at):
    """Batches of which those of the steps `at`, from 1, hold labels that nothing leads to."""

    def batches(step):
        while True:
            batch = tiny.batch(step)
            if step + 1 in at:
                batch.labels[batch.labels >= 0] = 23 - batch.tokens[batch.labels >= 0]
            yield batch
            step += 1

    return batches


def test_a_spike_is_left_out_and_a_resumed_run_knows_it(tiny, tmp_path):
    def session(folder, *overrides, stop=None, resume=False):
        def on_step(row):
            if row["step"] == stop:
                raise Killed

        recipe = tiny.recipe(*SPIKES, "optim.spike_sigma=2.5", *overrides)
        model = tiny.model(recipe)
        describe = [{"id": "a"}, {"id": "b"}]
        train(
            model,
            spiky(tiny, {34, 38}),
            recipe,
            folder,
            data_fingerprint="d",
            resume=resume,
            on_step=on_step,
            describe=lambda step: [row | {"batch": step} for row in describe],
        )
        return model.state_dict()

    straight = session(tmp_path / "straight")
    with pytest.raises(Killed):
        session(tmp_path / "broken", stop=37)  # resumes at 35, with the losses that a spike is measured by
    broken = session(tmp_path / "broken", resume=True)
    assert all(torch.equal(tensor, broken[name]) for name, tensor in straight.items())
    for folder in ("straight", "broken"):
        rows = read_jsonl(tmp_path / folder / "skipped.jsonl")
        assert [(row["step"], row["why"], row["documents"][0]) for row in rows] == [
            (34, "spike", {"id": "a", "batch": 33}),
            (38, "spike", {"id": "a", "batch": 37}),
        ]
        logged = [
            row["step"] for row in read_jsonl(tmp_path / folder / "metrics.jsonl") if row.get("skipped")
        ]
        assert logged == [34, 38]
    with pytest.raises(LonglodeError, match=r"Step 38 .*spike.*max_skips = 1"):
        session(tmp_path / "bounded", "optim.max_skips=1")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 12 steps in two stages, with checkpoints at 5, 6 (the edge), 10 and 12, of which all are kept."""
    folder = tmp_path_factory.mktemp("replay")
    rng = np.random.default_rng(3)
    words = ["river", "captain", "letter", "garden", "winter", "window"]
    rows = [{"id": f"d{n}", "text": " ".join(rng.choice(words, rng.integers(9, 70)))} for n in range(40)]
    (folder / "docs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    pack(folder / "docs.jsonl", folder / "shards", length=32)
    recipe = Recipe.parse(
        {
            "model": {"mixers": "DA", "hidden_size": 16, "num_heads": 2, "intermediate_size": 32},
            "data": {"shards": str(folder / "shards"), "length": 16, "batch_size": 4},
            "run": {"checkpoint_every": 5, "threads": 1, "keep": 9},
            "stages": [{"steps": 6}, {"steps": 6, "length": 32, "batch_size": 2, "rope_theta": 99.0}],
        }
    )
    train_run(recipe, folder / "run")
    return folder


@pytest.mark.parametrize(("step", "from_step"), [(1, 0), (5, 0), (6, 5), (7, 6), (12, 10)])
def test_a_step_run_again_gives_the_same_numbers(run, step, from_step):
    before = {path: path.stat().st_mtime_ns for path in (run / "run").rglob("*")}
    found = replay_run(run / "run", step)
    assert (found.from_step, found.is_same, found.taken) == (from_step, True, True)
    row = next(row for row in read_jsonl(run / "run" / "metrics.jsonl") if row["step"] == step)
    assert (found.loss, found.grad_norm) == (row["loss"], row["grad_norm"])
    assert math.sqrt(sum(norm**2 for _, norm in found.largest)) <= found.grad_norm * 1.0001
    assert found.largest[0][1] == max(norm for _, norm in found.largest)
    assert {path: path.stat().st_mtime_ns for path in (run / "run").rglob("*")} == before


def test_a_replay_names_the_documents_that_were_read(run):
    recipe = Recipe.parse(read_record(run / "run", "run")["recipe"])
    data = open_run_data(recipe, None, False, lambda line: None)
    shards = open_shards([run / "shards"])
    ids = shards.column("id").to_pylist()
    for step in (0, 3, 6, 11):
        batch = next(data.batches(step))
        documents = data.describe(step)
        read = [shards.tokens(ids.index(row["id"]), *row["tokens"]).tolist() for row in documents]
        assert step or replay_run(run / "run", 1).documents == documents
        assert [token for tokens in read for token in tokens] == batch.tokens.ravel().tolist()


def test_steps_that_cannot_be_run_again_are_refused(run, tmp_path):
    with pytest.raises(InputError, match="no step 13"):
        replay_run(run / "run", 13)
    with pytest.raises(InputError, match="no run to go on with"):
        replay_run(tmp_path / "nothing", 1)


def test_the_command_says_where_numbers_come_from(run):
    assert len(checkpoint_folders(run / "run" / "checkpoints")) == 4
    result = CliRunner().invoke(app, ["train", "-o", str(run / "run"), "--replay", "7"])
    assert result.exit_code == 0, result.output
    shown = " ".join(result.output.split())
    assert "the same as logged" in shown
    assert "docs.jsonl" in shown


def test_gradients_that_are_not_finite_are_named(tiny, tmp_path):
    recipe = tiny.recipe("run.checkpoint_every=2", "run.keep=9", "optim.on_nonfinite=skip")

    def poisoned():
        model = tiny.model(recipe)
        passes = iter(range(100))
        norm = model.model.layers[1].mlp_norm
        norm.register_forward_hook(
            lambda module, args, out: out * (float("nan") if next(passes) == count else 1.0)
        )
        return model

    count = 4
    train(poisoned(), tiny.batches, recipe, tmp_path / "run", data_fingerprint="d")
    assert [row["step"] for row in read_jsonl(tmp_path / "run" / "skipped.jsonl")] == [5]
    count = 0  # the first pass after the checkpoint of step 4
    found = replay(poisoned(), tiny.batches, recipe, tmp_path / "run", 5, data_fingerprint="d")
    assert (found.taken, found.why, found.is_same, found.from_step) == (False, "not finite", True, 4)
    assert "model.layers.1.mlp.gate_proj.weight" in found.not_finite
