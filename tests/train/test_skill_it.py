"""Skill-It: the rule by hand, and runs whose shares follow held-out losses, bitwise the same after a kill."""

import json
import math
import random

import numpy as np
import pytest

import longlode
from longlode.api.training_data import open_run_data
from longlode.core.errors import ConfigError
from longlode.core.records import read_jsonl
from longlode.train import Recipe
from longlode.train.skill_it import SkillIt, SkillItSection, graph_from_losses


def rule(graph=None, prior=None, **settings):
    prior = prior or {"a": 0.5, "b": 0.25, "c": 0.25}
    return SkillIt(SkillItSection.of({"graph": graph, **settings}), prior, lambda name: [])


def test_shares_by_the_formula():
    rng = random.Random(5)
    graph = [[rng.random() for _ in range(3)] for _ in range(3)]
    prior = {"a": 0.5, "b": 0.3, "c": 0.2}
    skill_it = rule(graph, prior, rate=0.7, window=2)
    measured = [[rng.uniform(1, 5) for _ in range(3)] for _ in range(4)]
    losses = [[1.0, 1.0, 1.0]]
    for step, new in enumerate([None, *measured]):
        if new is not None:
            losses = ([] if step == 1 else losses) + [new]
            assert skill_it.update(10 * step, new) == skill_it.changes[-1][1]
        summed = [sum(loss[j] for loss in losses[-2:]) for j in range(3)]
        weights = [
            share * math.exp(0.7 * sum(graph[i][j] * summed[j] for j in range(3)))
            for i, share in enumerate(prior.values())
        ]
        expected = {name: weight / sum(weights) for name, weight in zip(prior, weights, strict=True)}
        assert skill_it.changes[-1] == (10 * step, pytest.approx(expected))


def test_a_loss_that_is_not_finite_changes_nothing():
    skill_it = rule()
    before = list(skill_it.changes)
    assert skill_it.update(5, [1.0, math.nan, 2.0]) == before[-1][1]
    assert skill_it.changes == before


def test_state_comes_back():
    first, second = rule(), rule()
    first.update(3, [1.0, 2.0, 3.0])
    second.restore(json.loads(json.dumps(first.saved())))
    assert second.update(6, [2.0, 2.0, 1.0]) == first.update(6, [2.0, 2.0, 1.0])
    assert second.changes == first.changes


def test_the_graph_of_short_runs():
    # Group 0 helps 1 by half of what 1 itself does; 2 harms both; 3 does not even help itself.
    before = [4.0, 4.0, 4.0, 4.0]
    after = [[3.0, 3.5, 4.0, 4.0], [4.0, 3.0, 4.0, 4.0], [5.0, 5.0, 2.0, 4.0], [4.0, 4.0, 4.0, 4.5]]
    expected = [[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert np.allclose(graph_from_losses(before, after), expected)


@pytest.mark.parametrize(
    ("settings", "fact"), [({"evry": 3}, "every"), ({"rate": -1}, "rate"), ({"graph": [[1.0]]}, r"\(1, 1\)")]
)
def test_settings_that_cannot_be(settings, fact):
    with pytest.raises(ConfigError, match=fact):
        rule(**settings)


def test_changes_counted_from_a_stage():
    skill_it = rule()
    shares = [skill_it.changes[0][1], *(skill_it.update(step, [step / 5, 1.0, 2.0]) for step in (5, 10, 15))]
    assert skill_it.changes_from(0) == tuple(zip((0, 5, 10, 15), shares, strict=True))
    assert skill_it.changes_from(10) == ((0, shares[2]), (5, shares[3]))
    assert skill_it.changes_from(12) == ((0, shares[2]), (3, shares[3]))
    assert skill_it.changes_from(99) == ((0, shares[3]),)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two groups: one that is learned at once, and noise."""
    folder, rng = tmp_path_factory.mktemp("skill_it"), random.Random(3)
    rows = [{"id": f"e{i}", "source": "even", "text": "the fox runs away. " * 12} for i in range(60)]
    noise = ["".join(rng.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(200)) for _ in range(60)]
    rows += [{"id": f"n{i}", "source": "noise", "text": text} for i, text in enumerate(noise)]
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    longlode.pack(folder / "docs.jsonl", folder / "shards", length=32)
    return folder / "shards"


RECIPE = {
    "model": {"mixers": "D", "hidden_size": 16, "num_heads": 2},
    "data": {
        "length": 32,
        "batch_size": 4,
        "heldout_fraction": 0.2,
        "mix": {"even": 1, "noise": 1},
        "skill_it": {"every": 5, "rate": 1.0, "batches": 1},
    },
    "optim": {"lr": 0.02, "schedule": "constant"},
    "run": {"steps": 20, "device": "cpu", "threads": 1, "checkpoint_every": 4},
}


def run(shards, out, recipe, on_step=None):
    """Train, or go on; return the rows without times."""
    resume = out.exists()
    first = None if resume else Recipe.parse(recipe)
    longlode.train(first, out, set_=[f"data.shards={shards}"], resume=resume, on_step=on_step)
    rows = read_jsonl(out / "metrics.jsonl")
    for row in rows:
        row.pop("seconds", None), row.pop("tokens_per_second", None), row.pop("mfu", None)
    return rows


STAGES = [
    {"name": "long", "steps": 7, "length": 48},
    {"name": "fixed", "steps": 4, "mix": "even=0.5,noise=0.5"},
    {"name": "last", "steps": 9},
]


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.fixture(scope="module")
def staged(shards, tmp_path_factory):
    """A recipe of stages, the folder of its run in one piece, and its rows."""
    recipe = RECIPE | {"run": {**RECIPE["run"], "checkpoint_every": 3}, "stages": STAGES}
    recipe["run"].pop("steps")
    folder = tmp_path_factory.mktemp("staged") / "whole"
    return recipe, folder, run(shards, folder, recipe)


def test_stages_follow_the_losses_unless_they_have_a_mixture_of_their_own(shards, staged):
    recipe, _, rows = staged
    chosen = {row["step"]: row["shares"] for row in rows if "shares" in row}
    assert list(chosen) == [5, 10, 15, 20]
    assert chosen[20]["noise"] > 0.6  # the group that is still to be learned
    data = open_run_data(Recipe.parse(recipe, [f"data.shards={shards}"]), None, False, lambda line: None)
    data.recall_shares(rows)
    noise = [data.schedule(stage).sources(stage.num_steps)[1].share for stage in data.recipe.stage_list]
    assert noise[1] == pytest.approx(0.5, abs=0.05)
    assert noise[2] > noise[0] > 0.5


@pytest.mark.parametrize("stop", [8, 12])
def test_a_run_resumes_bitwise_across_stages(shards, staged, tmp_path, stop):
    """Killed in the stage with its own shares, and in the next, whose first shares are older than it."""

    def kill(row):
        if row["step"] == stop:
            raise Killed

    with pytest.raises(Killed):
        run(shards, tmp_path / "pieces", staged[0], kill)
    assert run(shards, tmp_path / "pieces", staged[0]) == staged[2]
    final = [out / "model" / "model.safetensors" for out in (staged[1], tmp_path / "pieces")]
    assert final[0].read_bytes() == final[1].read_bytes()


def test_a_step_after_a_choice_can_be_replayed(staged):
    from longlode.api.training import replay_run

    assert replay_run(staged[1], 17).is_same


def test_it_needs_groups_and_held_out_documents():
    for key in ("mix", "heldout_fraction"):
        data = {name: value for name, value in RECIPE["data"].items() if name != key}
        with pytest.raises(ConfigError, match="skill_it needs"):
            Recipe.parse({**RECIPE, "data": data})
