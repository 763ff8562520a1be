"""Several ranks: the losses and weights of one, agreement on what comes next, an end when a rank is gone."""

import json
import os
import signal
import time

import numpy as np
import pytest
import torch
from forked_ranks import run_ranks, values
from typer.testing import CliRunner

from longlode.cli.commands import app
from longlode.core.batch import Batch
from longlode.core.errors import ConfigError, InputError
from longlode.core.records import read_jsonl, read_record
from longlode.packing.by_name import pack
from longlode.parallel.world import RankError, World, joined
from longlode.train import train
from longlode.train.checkpoint import checkpoint_folders
from longlode.train.loop import micro_batches
from longlode.train.parts import parts_of_rank, shares
from longlode.train.sharding import whole_state

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch.distributed is not available"
)

MIXERS = "DSA"
OVERRIDES = ("data.micro_batch_size=1",)


def run(tiny, folder, *overrides, packed=False, mixers=MIXERS, double=False, **options):
    """Train in this process; return the summary, weights, and logged losses and norms."""
    recipe = tiny.recipe(*OVERRIDES, *overrides, mixers=mixers)
    model = tiny.model(recipe)
    if double:
        model = model.double()
    batches = options.pop("batches", tiny.packed_batches if packed else tiny.batches)
    summary = train(model, batches, recipe, folder, data_fingerprint=tiny.fingerprint, **options)
    weights = {name: tensor.clone() for name, tensor in whole_state(model).items()}
    return summary, weights, losses(folder)


def losses(folder):
    rows = [row for row in read_jsonl(folder / "metrics.jsonl") if "loss" in row]
    return [(row["step"], row["loss"], row["grad_norm"]) for row in rows]


def assert_close(found, expected, tolerance):
    assert found[0].step == expected[0].step
    np.testing.assert_allclose(found[2], expected[2], rtol=tolerance)
    for name, tensor in expected[1].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=0, atol=tolerance * float(tensor.abs().max()))


@pytest.mark.parametrize(("packed", "sharded"), [(False, False), (True, False), (True, True)])
def test_two_ranks_are_one(tiny, tmp_path, packed, sharded):
    # Labels are spread unevenly over the ranks, so a mean of the ranks' means would differ in the second digit.
    options = {"packed": packed, "heldout": tiny.heldout}

    def both(rank):
        folder, shard = tmp_path / "two", f"run.shard={str(sharded).lower()}"
        return run(tiny, folder, "run.steps=3", shard, double=True, **options), run(
            tiny, tmp_path / "two32", "run.steps=3", shard, **options
        )

    one = run(tiny, tmp_path / "one", "run.steps=3", double=True, **options)
    one32 = run(tiny, tmp_path / "one32", "run.steps=3", **options)
    for two, two32 in values(run_ranks(2, both, tmp_path)):
        assert_close(two, one, 1e-10)
        assert_close(two32, one32, 2e-5)
        assert two[0].eval_loss == pytest.approx(one[0].eval_loss, rel=1e-12)
        assert two[0].tokens == one[0].tokens
    assert read_record(tmp_path / "two", "run")["ranks"] == 2


@pytest.mark.parametrize("sharded", ["false", "true"])
def test_saved_on_two_resumed_on_one_and_the_reverse(tiny, tmp_path, sharded):
    def ending(step):
        yield from (tiny.batch(number) for number in range(step, 7))  # the run fails in step 8

    def broken(folder, *overrides):
        with pytest.raises(InputError, match="step 8"):
            run(tiny, folder, *overrides, double=True, batches=ending)

    def both(rank):
        shard = f"run.shard={sharded}"
        broken(tmp_path / "on two", shard)
        return run(tiny, tmp_path / "on one", shard, resume=True, double=True)

    straight = run(tiny, tmp_path / "straight", double=True)
    broken(tmp_path / "on one")
    found = values(run_ranks(2, both, tmp_path))
    found.append(run(tiny, tmp_path / "on two", resume=True, double=True))
    for resumed in found:
        assert resumed[0].resumed_from == 5
        assert_close(resumed, straight, 1e-10)


def test_random_numbers_of_each_rank_go_on(tiny, tmp_path):
    def drawing(model):
        model.model.norm.register_forward_hook(
            lambda module, args, out: torch.nn.functional.dropout(out, 0.2)
        )

    def session(folder, *overrides, **options):
        recipe = tiny.recipe(*OVERRIDES, *overrides)
        model = tiny.model(recipe)
        drawing(model)
        batches = options.pop("batches", tiny.batches)
        train(model, batches, recipe, folder, data_fingerprint="d", **options)
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.rand(2)

    def work(rank):
        straight = session(tmp_path / "straight")
        with pytest.raises(InputError):
            session(
                tmp_path / "broken",
                batches=lambda step: iter([tiny.batch(number) for number in range(step, 7)]),
            )
        torch.manual_seed(99)
        return straight, session(tmp_path / "broken", resume=True)

    found = values(run_ranks(2, work, tmp_path))
    for straight, resumed in found:
        assert all(torch.equal(tensor, resumed[0][name]) for name, tensor in straight[0].items())
        assert torch.equal(straight[1], resumed[1])
    assert not torch.equal(found[0][0][1], found[1][0][1])  # each rank draws its own


def test_ranks_agree_when_to_stop_and_what_to_skip(tiny, tmp_path):
    def batches(step):
        for number in range(step, 100):
            if number == 4 and os.environ["RANK"] == "1":
                os.kill(
                    os.getpid(), signal.SIGTERM
                )  # one rank alone is asked to stop, in the middle of step 5
            yield tiny.batch(number)

    def poisoned(rank):
        """Only the rows of rank 1 make numbers that are not finite."""
        recipe = tiny.recipe(*OVERRIDES, 'optim.on_nonfinite="skip"', "run.steps=3")
        model = tiny.model(recipe)
        if rank == 1:
            count = iter(range(100))
            model.model.norm.register_forward_hook(
                lambda module, args, out: out * (float("nan") if next(count) == 2 else 1.0)
            )
        return train(model, tiny.batches, recipe, tmp_path / "skip", data_fingerprint="d")

    def work(rank):
        stopped = run(tiny, tmp_path / "stop", "run.steps=100", batches=batches)[0]
        return stopped, poisoned(rank)

    for stopped, skipped in values(run_ranks(2, work, tmp_path)):
        assert (stopped.status, stopped.step) == ("interrupted", 5)
        assert (skipped.status, skipped.skips) == ("finished", 1)
    assert [path.name for path in checkpoint_folders(tmp_path / "stop" / "checkpoints")] == ["step-00000005"]
    assert [row["step"] for row in read_jsonl(tmp_path / "skip" / "metrics.jsonl") if row.get("skipped")] == [
        2
    ]


@pytest.mark.parametrize("way", ["dies", "hangs"])
def test_a_rank_that_is_gone_ends_the_others(tiny, tmp_path, way):
    def batches(step):
        for number in range(step, 100):
            if number == 3 and os.environ["RANK"] == "1":
                if way == "dies":
                    os._exit(9)
                time.sleep(9)
            yield tiny.batch(number)

    def work(rank):
        began = time.monotonic()
        with pytest.raises(RankError, match="has ended") as caught:
            run(tiny, tmp_path / "run", "run.steps=100", batches=batches)
        return time.monotonic() - began, str(caught.value)

    outcomes = run_ranks(2, work, tmp_path, wait_seconds=3, seconds=10)
    seconds, message = outcomes[0].value
    assert seconds < 9
    assert "--resume" in message
    assert read_record(tmp_path / "run", "run")["status"] == "failed"


def test_an_error_of_rank_0_is_raised_on_all(tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("")
    outcomes = run_ranks(2, lambda rank: run(tiny, tmp_path / "run"), tmp_path)
    assert [type(outcome.error) for outcome in outcomes] == [InputError, InputError]
    assert "thesis.txt" in str(outcomes[1].error)


def test_sharding_needs_several_ranks(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"run\.shard"):
        run(tiny, tmp_path / "run", "run.shard=true")


def test_only_some_ranks_use_a_parameter(tmp_path):
    def work(rank):
        used, unused, once = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))
        used.grad = torch.full((3,), 1.0 + rank)
        if rank == 1:
            once.grad = torch.full((3,), 5.0)
        with joined() as world:
            world.sum_gradients([used, unused, once])
            return used.grad, unused.grad, once.grad, world.agree([rank, -rank])

    for used, unused, once, agreed in values(run_ranks(2, work, tmp_path)):
        assert (used.tolist(), unused, once.tolist(), agreed) == ([3.0] * 3, None, [5.0] * 3, [1, 0])


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("packed", [False, True])
def test_shares_are_the_batch(num_ranks, packed):
    rng = np.random.default_rng()
    for _ in range(20):
        edges = np.concatenate([[0], np.cumsum(rng.integers(1, 50, rng.integers(1, 12)))]).astype(np.int32)
        shape = (1, edges[-1]) if packed else (len(edges) - 1, 5)
        tokens = np.arange(np.prod(shape)).reshape(shape)
        labels = np.where(rng.random(shape) < 0.7, tokens, -100)
        labels[0, 0] = 1  # a batch has at least one label
        batch = Batch(tokens, labels, edges if packed else None, rng.random(shape, dtype=np.float32))
        found = shares(batch, num_ranks)
        assert len(found) == num_ranks
        joined_again = [share for share in found if share is not None]
        axis = 1 if packed else 0
        for name in ("tokens", "labels", "weights"):
            parts = [getattr(share, name) for share in joined_again]
            assert np.array_equal(np.concatenate(parts, axis), getattr(batch, name))
        longest = int(np.diff(edges).max()) if packed else 5
        for share in found:
            size = 0 if share is None else share.tokens.size
            assert abs(size - batch.tokens.size / num_ranks) <= longest
            if packed and share is not None:
                assert set(np.diff(share.cu_seqlens)) <= set(np.diff(edges))
        parts = [parts_of_rank(batch, 1, 20, rank, num_ranks) for rank in range(num_ranks)]
        assert len({len(own) for own in parts}) == 1
        assert sum(part.num_tokens for own in parts for part in own) == batch.num_tokens
        if num_ranks == 1:
            assert len(parts[0]) == len(list(micro_batches(batch, 1, 20)))


def test_a_grid_of_ranks():
    grid = [World(rank, 6, sequence_ranks=3) for rank in range(6)]
    assert [(world.data_rank, world.sequence_rank) for world in grid] == [
        *((0, 0), (0, 1), (0, 2)),
        *((1, 0), (1, 1), (1, 2)),
    ]
    assert [world.is_main for world in grid] == [True] + [False] * 5
    with pytest.raises(ConfigError, match="multiple of the 4"):
        World(0, 6, sequence_ranks=4)


def test_the_command_under_torchrun(tiny, tmp_path):
    documents = [
        {"id": str(number), "text": "the river and the captain of the village " * 12} for number in range(20)
    ]
    (tmp_path / "docs.jsonl").write_text("".join(f"{json.dumps(document)}\n" for document in documents))
    pack(tmp_path / "docs.jsonl", tmp_path / "shards", length=64)
    recipe = tiny.recipe("data.length=64", "run.steps=2", mixers="D").resolved()
    recipe["data"]["shards"] = str(tmp_path / "shards")

    lines = []
    for section, keys in recipe.items():
        lines += [
            f"[{section}]",
            *(f"{key} = {json.dumps(value)}" for key, value in keys.items() if value not in (None, {})),
        ]
    (tmp_path / "recipe.toml").write_text("\n".join(lines))
    arguments = ["train", str(tmp_path / "recipe.toml"), "-o", str(tmp_path / "run"), "--json"]

    def work(rank):
        result = CliRunner().invoke(app, arguments)
        return result.exit_code, result.stdout

    found = values(run_ranks(2, work, tmp_path))
    assert [code for code, _ in found] == [0, 0]
    printed = json.loads(found[0][1])
    assert found[1][1] == ""  # rank 0 alone prints
    assert (printed["status"], printed["step"]) == ("finished", 2)
    assert read_record(tmp_path / "run", "run")["ranks"] == 2
