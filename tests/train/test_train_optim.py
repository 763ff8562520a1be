"""Learning rates at known points, and which parameters decay."""

import math

import pytest
import torch

from longlode.train.optim import all_ranks_finite, build_optimizer, learning_rate


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        ("cosine", 0.0, 1.0),
        ("cosine", 0.25, 0.1 + 0.9 * (0.5 + 0.5 * math.cos(math.pi / 4))),
        ("cosine", 0.5, 0.55),
        ("cosine", 1.0, 0.1),
        ("cosine", 1.5, 0.1),
        ("wsd", 0.0, 1.0),
        ("wsd", 0.8, 1.0),
        ("wsd", 0.9, 0.55),
        ("wsd", 1.0, 0.1),
        ("constant", 1.0, 1.0),
    ],
)
def test_schedules_at_known_points(tiny, schedule, progress, expected):
    optim = tiny.recipe(f"optim.schedule={schedule}", "optim.lr=2", "optim.warmup_steps=0").optim
    assert learning_rate(optim, 1000, progress) == pytest.approx(2 * expected)


def test_warm_up_rises_from_the_first_step(tiny):
    optim = tiny.recipe("optim.schedule=constant", "optim.lr=1", "optim.warmup_steps=4").optim
    assert [learning_rate(optim, step, 0.0) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def names_in(model, group):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)] for parameter in group["params"]}


def test_only_matrices_decay(tiny):
    recipe = tiny.recipe(mixers="DG")
    model = tiny.model(recipe)
    decayed, rest = build_optimizer(model, recipe.optim).param_groups
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    names, others = names_in(model, decayed), names_in(model, rest)
    assert names | others == {name for name, _ in model.named_parameters()}
    assert {"model.layers.0.attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"} <= names
    assert {
        "model.embeddings.weight",
        "lm_head.weight",
        "model.norm.weight",
        "model.layers.0.attn.q_conv1d.weight",
        "model.layers.0.attn.o_norm.weight",
        "model.layers.1.attn.A_log",
    } <= others
    recipe = tiny.recipe("optim.decay_embeddings=true")
    model = tiny.model(recipe)
    assert {"model.embeddings.weight", "lm_head.weight"} <= names_in(
        model, build_optimizer(model, recipe.optim).param_groups[0]
    )


def test_frozen_parameters_are_left_out(tiny):
    recipe = tiny.recipe()
    model = tiny.model(recipe)
    model.model.embeddings.weight.requires_grad_(False)
    groups = build_optimizer(model, recipe.optim).param_groups
    assert "model.embeddings.weight" not in names_in(model, groups[0]) | names_in(model, groups[1])


def test_all_ranks_finite():
    assert all_ranks_finite(torch.tensor(1.0), torch.zeros(2))
    assert not all_ranks_finite(torch.tensor(1.0), torch.tensor([0.0, math.inf]))
    assert not all_ranks_finite(torch.tensor(math.nan))
