"""Sequences on several ranks: ten steps of a grid of data and sequence ranks are those of one rank."""

import os
import time

import numpy as np
import pytest
import torch
from forked_ranks import run_ranks, values
from torch.distributed.fsdp import FSDPModule

from longlode.core.errors import ConfigError, InputError, RankError
from longlode.core.records import read_jsonl
from longlode.parallel.cost_file import MeasuredCost
from longlode.train import train
from longlode.train.fitted_cost import step_facts
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


def difference(found, expected, together=False):
    """Largest difference of losses, norms and weights, relative to each loss and to each tensor's norm.

    together: of all weights together, relative to their norm.
    """
    assert found[0].step == expected[0].step
    logged = np.abs(np.array(found[2]) / np.array(expected[2]) - 1).max()
    apart = [float((found[1][name].double() - tensor).norm()) for name, tensor in expected[1].items()]
    norms = [float(tensor.double().norm()) for tensor in expected[1].values()]
    if together:
        return max(logged, np.linalg.norm(apart) / np.linalg.norm(norms))
    return max(logged, *np.divide(apart, norms))


COST = "parallel.cost={fixed = 2, per_rank = 1, per_token = 1, per_pair = 0, per_sent = 0.1}"
FITTED = ("parallel.groups=fitted", COST)
WAYS = {
    "4 ranks": ("parallel.sequence=4", ROWS),
    "2 x 2": ("parallel.sequence=2", "parallel.attention=ring", "data.micro_batch_size=2"),
    "fitted groups, in rounds": (*FITTED, "parallel.max_tokens=10"),
    "2 x 2, weights sharded": ("parallel.sequence=2", "parallel.states=ulysses", "run.shard=true", ROWS),
}


def test_ten_steps_of_four_ranks_are_those_of_one(tiny, tmp_path):
    def work(rank):
        ways = {
            way: run(tiny, tmp_path / way, *settings, heldout=tiny.heldout) for way, settings in WAYS.items()
        }
        rows = run(tiny, tmp_path / "rows", "parallel.sequence=4", ROWS, "run.steps=2", packed=False)
        single = run(tiny, tmp_path / "float32", "parallel.sequence=4", ROWS, double=False)
        few = (*fitted, "parallel.max_tokens=12", "run.steps=2", "run.shard=true")
        fitted_rows = run(tiny, tmp_path / "fitted rows", *few, packed=False)
        return ways, rows, single, fitted_rows

    fitted = ("parallel.groups=fitted", f"parallel.cost={tmp_path / 'cost.json'}")
    recipe = tiny.recipe(mixers="DSA")
    measured = [(size, [16] * number, 2 + size + number) for size in (1, 2) for number in (1, 2, 3)]
    cost = MeasuredCost.fit(measured, step_facts(recipe, tiny.model(recipe)), {})
    cost.write(tmp_path / "cost.json")
    one = run(tiny, tmp_path / "one", ROWS, heldout=tiny.heldout)
    few_rows = run(tiny, tmp_path / "few, rows", ROWS, "run.steps=2", packed=False)
    one_single = run(tiny, tmp_path / "one, float32", ROWS, double=False)
    for ways, rows, single, fitted_rows in values(run_ranks(4, work, tmp_path)):
        for way, found in ways.items():
            assert found[0].eval_loss == pytest.approx(one[0].eval_loss, rel=1e-12)
            assert found[0].tokens == one[0].tokens
            assert difference(found, one) < 1e-12, way
        assert difference(rows, few_rows) < 1e-12
        assert difference(fitted_rows, few_rows) < 1e-12
        assert difference(single, one_single, together=True) < 1e-6
        # Single tensors: AdamW divides gradients of about its eps by themselves, and with them their rounding. The
        # rounding of one rank, seen from float64, moves these as far.
        assert difference(single, one_single) < 3 * difference(one_single, one)


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
    sharded = ("parallel.sequence=2",) if saved_on == 1 else (*FITTED, "parallel.max_tokens=40")
    if saved_on == 1:
        saved()
        found = values(run_ranks(2, lambda rank: resumed(*sharded), tmp_path))
    else:
        values(run_ranks(2, lambda rank: saved(*sharded), tmp_path))
        found = [resumed()]
    for one in found:
        assert one[0].resumed_from == 5
        assert difference(one, straight) < 1e-12


OBJECTIVES = {
    "long_ce": "{short_context = 4}",
    "masked_lm": "{mask_token = 3}",
    "distill": '{teacher = "TEACHER", match = "logits", label_weight = 0.5}',
    "distill, layers": '{teacher = "TEACHER", match = "layers"}',
    "prefix_lm": "{least = 0.3, most = 0.8}",
}


def test_objectives_that_read_predictions_are_those_of_one(tiny, tmp_path):
    teacher = tiny.model(tiny.recipe("run.seed=7", mixers="DSA")).double()
    teacher.save_pretrained(tmp_path / "teacher")

    def logged(name, *overrides):
        options = OBJECTIVES[name].replace("TEACHER", str(tmp_path / "teacher"))
        asked = (f"optim.objective={name.split(',')[0]}", f"optim.objective_options={options}")
        folder = tmp_path / f"{name} {len(overrides)}"
        if name == "prefix_lm":
            overrides = ('model.layers=["prefix_linear_attention", "delta_net"]', *overrides)
        mixers = "none" if name == "prefix_lm" else "DSA"
        found = run(tiny, folder, "run.steps=2", ROWS, *asked, *overrides, mixers=mixers)
        kept = ("loss", "token_weight", "divergence", "next_token", "layer_")
        rows = [
            {k: v for k, v in row.items() if k.startswith(kept)}
            for row in read_jsonl(folder / "metrics.jsonl")
        ]
        return found, rows

    def work(rank):
        return {name: logged(name, "parallel.sequence=2") for name in OBJECTIVES}

    one = {name: logged(name) for name in OBJECTIVES}
    found = values(run_ranks(2, work, tmp_path))[0]
    for name, (run_of_one, rows) in one.items():
        assert difference(found[name][0], run_of_one) < 1e-12, name
        assert len(rows[0]) > 1 or name in ("masked_lm", "prefix_lm")
        for row, expected in zip(found[name][1], rows, strict=True):
            assert row == pytest.approx(expected, rel=1e-11), name


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

    def logged(name, ranks, *overrides):
        settings = (layers, "run.steps=2", ROWS, *overrides)
        run(tiny, tmp_path / name, *settings, mixers="none", flops_per_second=1e9)
        kept = ("loss", "aux_loss", "layer_", "flops")
        rows = [*read_jsonl(tmp_path / name / "metrics.jsonl")]
        for row, read in zip(rows, np.diff([0, *(row["tokens"] for row in rows)]), strict=True):
            # The devices of all ranks could have done so much in the time of the step.
            row["flops"] = row["mfu"] * ranks * 1e9 * read / row["tokens_per_second"]
        return [{key: row[key] for key in row if key.startswith(kept)} for row in rows]

    one = logged("one", 1)
    assert one[0]["aux_loss"] > 0
    assert any(key.startswith("layer_") for key in one[0])
    two, _ = values(run_ranks(2, lambda rank: logged("two", 2, "parallel.sequence=2"), tmp_path))
    assert len(two) == 2
    for found, expected in zip(two, one, strict=True):
        assert found == pytest.approx(expected, rel=1e-11)


def test_gradients_of_sharded_weights_that_are_averaged_are_rejected(tiny, tmp_path, monkeypatch):
    """FSDP2 divides by the number of ranks unless it is told not to; gloo once summed all the same."""
    settings = ("run.steps=1", "parallel.sequence=2", "run.shard=true", ROWS)

    def work(rank):
        right = run(tiny, tmp_path / "right", *settings)
        divide = FSDPModule.set_gradient_divide_factor
        monkeypatch.setattr(
            FSDPModule, "set_gradient_divide_factor", lambda self, factor: divide(self, 2 * factor)
        )
        return right, run(tiny, tmp_path / "averaged", *settings)

    one = run(tiny, tmp_path / "one", "run.steps=1", ROWS)
    for right, averaged in values(run_ranks(2, work, tmp_path)):
        assert difference(right, one) < 1e-12
        assert difference(averaged, one) > 0.1
