"""Sequences on several ranks: ten steps of a grid of data and sequence ranks are those of one rank."""

import os
import time

import numpy as np
import pytest
import torch
from forked_ranks import run_ranks, values

from longlode.core.errors import ConfigError, InputError, RankError
from longlode.core.records import read_jsonl
from longlode.train import train
from longlode.train.sharding import whole_state

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch.distributed is not available"
)

ROWS = (
    "data.micro_batch_size=4"  # all 64 packed tokens at once: on 4 ranks one document lies on three of them
)


def run(tiny, folder, *overrides, packed=True, mixers="DSA", double=True, **options):
    """Train in this process; return the summary, weights, and logged losses and norms."""
    recipe = tiny.recipe(*(overrides or ()), mixers=mixers)
    model = tiny.model(recipe)
    if double:
        model = model.double()
    batches = options.pop("batches", tiny.packed_batches if packed else tiny.batches)
    summary = train(model, batches, recipe, folder, data_fingerprint=tiny.fingerprint, **options)
    weights = {name: tensor.clone() for name, tensor in whole_state(model).items()}
    rows = [row for row in read_jsonl(folder / "metrics.jsonl") if "loss" in row]
    return summary, weights, [(row["step"], row["loss"], row["grad_norm"]) for row in rows]


def difference(found, expected):
    """Largest difference of losses, norms and weights, relative to each loss and to each tensor's norm."""
    assert found[0].step == expected[0].step
    logged = np.abs(np.array(found[2]) / np.array(expected[2]) - 1).max()
    weights = [
        float((found[1][name] - tensor).norm() / tensor.norm()) for name, tensor in expected[1].items()
    ]
    return max(logged, *weights)


WAYS = {
    "4 ranks": ("parallel.sequence=4", ROWS),
    "2 x 2": ("parallel.sequence=2", "parallel.attention=ring", "data.micro_batch_size=2"),
    "2 x 2, weights sharded": ("parallel.sequence=2", "parallel.states=ulysses", "run.shard=true", ROWS),
}


def test_ten_steps_of_four_ranks_are_those_of_one(tiny, tmp_path):
    def work(rank):
        ways = {
            way: run(tiny, tmp_path / way, *settings, heldout=tiny.heldout) for way, settings in WAYS.items()
        }
        rows = run(tiny, tmp_path / "rows", "parallel.sequence=4", ROWS, packed=False)
        single = run(tiny, tmp_path / "float32", "parallel.sequence=4", ROWS, double=False)
        return ways, rows, single

    one = run(tiny, tmp_path / "one", ROWS, heldout=tiny.heldout)
    one_rows = run(tiny, tmp_path / "one, rows", ROWS, packed=False)
    one_single = run(tiny, tmp_path / "one, float32", ROWS, double=False)
    for ways, rows, single in values(run_ranks(4, work, tmp_path)):
        for way, found in ways.items():
            assert found[0].eval_loss == pytest.approx(one[0].eval_loss, rel=1e-12)
            assert found[0].tokens == one[0].tokens
            assert difference(found, one) < 1e-12, way
        assert difference(rows, one_rows) < 1e-12
        # In float32 the first step agrees to its rounding; AdamW then multiplies the rounding of small gradients.
        np.testing.assert_allclose(single[2][0], one_single[2][0], rtol=1e-6)
        assert difference(single, one_single) < 2e-5


@pytest.mark.parametrize("saved_on", [1, 2])
def test_saved_on_one_number_of_ranks_and_resumed_on_another(tiny, tmp_path, saved_on):
    def ending(step):
        yield from (tiny.batch(number, packed=True) for number in range(step, 7))  # the run fails in step 8

    def saved(*overrides):
        with pytest.raises(InputError, match="step 8"):
            run(tiny, tmp_path / "run", ROWS, *overrides, batches=ending)

    def resumed(*overrides):
        return run(tiny, tmp_path / "run", ROWS, *overrides, resume=True)

    straight = run(tiny, tmp_path / "straight", ROWS)
    sharded = "parallel.sequence=2"
    if saved_on == 1:
        saved()
        found = values(run_ranks(2, lambda rank: resumed(sharded), tmp_path))
    else:
        values(run_ranks(2, lambda rank: saved(sharded), tmp_path))
        found = [resumed()]
    for one in found:
        assert one[0].resumed_from == 5
        assert difference(one, straight) < 1e-12


def test_what_cannot_be_read_in_pieces_is_refused(tiny, tmp_path):
    def refused(rank):
        messages = []
        for objective in ("prefix_lm", "long_ce"):
            with pytest.raises(ConfigError) as caught:
                run(tiny, tmp_path / objective, "parallel.sequence=2", f"optim.objective={objective}")
            messages.append(str(caught.value))
        return messages

    for messages in values(run_ranks(2, refused, tmp_path)):
        assert all("parallel.sequence is 2" in message for message in messages)


def test_a_rank_that_is_gone_ends_the_others(tiny, tmp_path):
    def work(rank):
        def batches(step):
            for number in range(step, 100):
                if number == 3 and rank == 1:
                    os._exit(9)
                yield tiny.batch(number)

        began = time.monotonic()
        with pytest.raises(RankError):
            run(tiny, tmp_path / "run", "parallel.sequence=2", batches=batches)
        return time.monotonic() - began

    alive, gone = run_ranks(2, work, tmp_path, wait_seconds=10)
    assert gone.exit_code == 9
    assert alive.value < 20


def test_sequences_on_several_ranks_need_those_ranks(tiny, tmp_path):
    with pytest.raises(ConfigError, match="torchrun"):
        run(tiny, tmp_path / "run", "parallel.sequence=2")
    with pytest.raises(ConfigError, match="ring_balanced"):
        tiny.recipe("parallel.attention=star")


def test_a_recipe_without_the_section_keeps_its_fingerprint(tiny):
    assert "parallel" not in tiny.recipe().resolved()
    assert tiny.recipe("parallel.sequence=4").fingerprint() == tiny.recipe().fingerprint()


def test_auxiliary_losses_and_metrics_are_those_of_one(tiny, tmp_path):
    layers = 'model.layers=["mixture_of_memories", "sliding_window_attention"]'

    def logged(name, *overrides):
        run(tiny, tmp_path / name, layers, "run.steps=2", ROWS, *overrides, mixers="none")
        kept = ("loss", "aux_loss", "layer_")
        rows = read_jsonl(tmp_path / name / "metrics.jsonl")
        return [{key: row[key] for key in row if key.startswith(kept)} for row in rows]

    one = logged("one")
    assert one[0]["aux_loss"] > 0
    assert any(key.startswith("layer_") for key in one[0])
    two, _ = values(run_ranks(2, lambda rank: logged("two", "parallel.sequence=2"), tmp_path))
    assert len(two) == 2
    for found, expected in zip(two, one, strict=True):
        assert found == pytest.approx(expected, rel=1e-11)
