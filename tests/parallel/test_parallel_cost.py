"""Cost models that a benchmark measures: fitted to its times, written, and read by a run of the same model."""

import json

import numpy as np
import pytest

pytest.importorskip("scipy")
from benchmarks import sharding, sharding_cost
from longlode.core.errors import ConfigError, InputError
from longlode.parallel.planner import CostModel
from longlode.train import Recipe, build_model
from longlode.train.fitted_cost import cost_of_run

RECIPE = """
[model]
mixers = "DA"
hidden_size = 16
num_heads = 2
[data]
length = 64
batch_size = 2
[run]
steps = 2
[parallel]
attention = "ring"
groups = "fitted"
max_tokens = 100
cost = "COST"
"""


@pytest.fixture(scope="module")
def cost_file(tmp_path_factory):
    """A cost model with made-up numbers, and the file that the benchmark writes when steps take what it says."""
    cost = CostModel(*(np.random.default_rng().uniform(0.1, 1, 5) * [1.0, 0.5, 1e-2, 1e-4, 5e-3]).tolist())

    def run(ranks, settings, todo, kind):
        assert settings["recipe"]["model"]["mixers"] == "DA"
        assert settings["vocab_size"] == 24
        rows = []
        for case in todo:
            seconds = cost.fixed + cost.per_rank * (ranks - 1)
            for n in case.documents:
                seconds += (
                    n * cost.per_token + n * n * cost.per_pair + n * (ranks - 1) * cost.per_sent
                ) / ranks
            rows.append({"ranks": ranks, "documents": case.documents, "seconds": seconds})
        return rows

    folder = tmp_path_factory.mktemp("cost")
    recipe, path = folder / "recipe.toml", folder / "cost.json"
    recipe.write_text(RECIPE.replace("COST", str(path)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "run", run)
        sharding_cost.main([str(recipe), str(path), "--vocab-size=24", "--lengths=300,900"])
    return cost, recipe, path


def cost_in(recipe, *overrides):
    read = Recipe.load(recipe, list(overrides))
    return cost_of_run(read, build_model(read, 24))


def test_a_run_plans_with_the_times_that_were_measured(cost_file):
    cost, recipe, path = cost_file
    found = cost_in(recipe)
    for size, lengths in ((1, [50]), (3, [2000, 7]), (16, [10, 90_000])):
        assert found.seconds(size, lengths) == pytest.approx(cost.seconds(size, lengths), rel=1e-5)
    held = json.loads(path.read_text())
    assert held["largest_error"] < 1e-6
    assert len(held["measured"]) == 3 * 2 * 2
    assert held["machine"]["versions"]["longlode"]
    assert cost_in(recipe, "parallel.cost={fixed=1,per_rank=0,per_token=0,per_pair=0,per_sent=0}").fixed == 1


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model.hidden_size=32", "hidden_size"),
        ("model.mixers=DD", "layers"),
        ("model.num_heads=4", "layers"),
        ("parallel.attention=gather", "attention"),
        ("run.dtype=bfloat16", "dtype"),
        ("run.gradient_checkpointing=true", "gradient_checkpointing"),
    ],
)
def test_a_cost_model_of_another_model_is_refused(cost_file, override, named):
    _, recipe, _ = cost_file
    with pytest.raises(ConfigError, match=f"measured with {named} ="):
        cost_in(recipe, override)


def test_a_file_that_is_no_cost_model_is_refused(cost_file, tmp_path):
    _, recipe, path = cost_file
    held, path = json.loads(path.read_text()), tmp_path / "damaged.json"
    for damaged in (
        {**held, "cost": {"fixed": 1}},
        [],
        {**held, "cost": {**held["cost"], "per_token": -1}},
        {**held, "measured": [{"ranks": "two", "lengths": [5], "seconds": 1.0}]},
        {**held, "measured": [{"ranks": 2, "lengths": [5], "seconds": 0}]},
    ):
        path.write_text(json.dumps(damaged))
        with pytest.raises(InputError, match="cost model"):
            cost_in(recipe, f"parallel.cost={path}")
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        cost_in(recipe, f"parallel.cost={path}")
    with pytest.raises(InputError, match="is no file"):
        cost_in(recipe, f"parallel.cost={tmp_path}")
