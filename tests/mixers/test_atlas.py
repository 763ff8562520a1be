"""Atlas: against its rule token by token with gradients from autograd, and as DeltaNet and Titans."""

import math

import pytest
import torch
from mixer_laws import (
    SHARED,
    D,
    T,
    build,
    gradients_through_the_state,
    inputs,
    left_padding,
    packing_from_states,
    pieces,
    right_padding,
    steps,
)

from longlode.core.errors import ConfigError
from longlode.mixers import MIXERS
from longlode.mixers.atlas import orthogonalise

KIND = MIXERS.get("atlas")
TITANS = {"window": 1, "optimizer": "sgd", "feature_degree": 1, "step_size": 1.0}
VARIANTS = {
    "atlas": {"window": 3, "chunk_size": 4, "feature_degree": 2},
    "atlas, a token a chunk": {"window": 3, "chunk_size": 1, "feature_degree": 1},
    "wide window, plain steps": {"window": 7, "chunk_size": 3, "optimizer": "sgd", "feature_degree": 2},
    "linear, muon, no momentum": {
        "memory": "linear", "chunk_size": 4, "use_momentum": False, "feature_degree": 1
    },
    "titans": {**TITANS, "chunk_size": 5, "step_size": 0.2},
    "delta rule": {
        **TITANS, "memory": "linear", "chunk_size": 1, "use_momentum": False, "use_decay": False
    },
}  # fmt: skip


def config(settings):
    return KIND.from_settings(settings, {**SHARED, "num_heads": 2, "head_dim": 4})


def newton_schulz(x):
    x = x / math.sqrt(float((x * x).sum()) + 1e-14)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    return x


def by_hand(mixer, x):
    """y of one document x `[T, D]`: every step as the rule says, its gradients by autograd."""
    c, w = mixer.config, {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    K = c.head_dim

    def stream(name):
        u, taps, rows = x @ w[f"{name}_proj.weight"].T, w[f"{name}_conv1d.weight"][:, 0], []
        for t in range(len(x)):
            total = sum(taps[:, c.conv_size - 1 - b] * u[t - b] for b in range(c.conv_size) if t >= b)
            rows.append(total / (1 + torch.exp(-total)))
        return torch.stack(rows)

    def unit(u):
        return u / math.sqrt(float(u @ u) + 1e-6)

    def phi(u):
        if c.feature_degree == 1:
            return u
        pairs = [u[i] * u[j] * (math.sqrt(0.5) if i == j else 1) for i in range(K) for j in range(i, K)]
        return torch.cat((u, torch.stack(pairs)))

    def gate(name, t, h):
        logit = x[t] @ w[f"{name}_proj.weight"][h]
        return float(torch.sigmoid(logit + (w[f"{name}_proj.bias"][h] if name != "b" else 0)))

    def net(weights, z):
        if len(weights) == 1:
            return z @ weights[0]
        inner = z @ weights[0]
        return (inner / (1 + torch.exp(-inner))) @ weights[1]

    q, k, v = stream("q"), stream("k"), stream("v")
    rows = torch.zeros_like(v)
    for h in range(c.num_heads):
        part = slice(h * K, (h + 1) * K)
        if c.memory == "mlp":
            M = [w["first_up"][h], w["first_down"][h]]
        else:
            M = [torch.zeros(c.num_features, K, dtype=torch.float64)]
        S = [torch.zeros_like(one) for one in M]
        for t in range(len(x)):
            if t % c.chunk_size == 0:
                anchor = [one.clone().requires_grad_() for one in M]
            loss = 0.0
            for i in range(max(0, t - c.window + 1), t + 1):
                error = net(anchor, phi(unit(k[i, part]))) - v[i, part]
                loss = loss + (gate("gamma", i, h) if c.window > 1 else 1.0) * 0.5 * (error @ error)
            theta = gate("theta", t, h) if c.use_momentum else 0.0
            alpha = gate("alpha", t, h) ** (1 / 16) if c.use_decay else 1.0
            eta = c.step_size * gate("b", t, h)
            S = [theta * s + grad for s, grad in zip(S, torch.autograd.grad(loss, anchor), strict=True)]
            M = [
                alpha * m - eta * (newton_schulz(s) if c.optimizer == "muon" else s)
                for m, s in zip(M, S, strict=True)
            ]
            o = net(M, phi(unit(q[t, part])))
            rows[t, part] = o / math.sqrt(float(o @ o) / K + c.norm_eps) * w["o_norm.weight"]
    return rows @ w["o_proj.weight"].T


@pytest.mark.parametrize("variant", VARIANTS)
def test_against_the_rule(variant):
    mixer, x = build(config(VARIANTS[variant])), inputs(2)
    for n in range(2):
        torch.testing.assert_close(mixer(x).y[n], by_hand(mixer, x[n]), rtol=0, atol=1e-10)


BLOCK_LAWS = [pieces, steps, packing_from_states, left_padding, right_padding, gradients_through_the_state]


@pytest.mark.parametrize("law", BLOCK_LAWS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_laws_that_chunks_and_windows_could_break(variant, law):
    law(build(config(VARIANTS[variant])))


def test_a_window_of_one_a_linear_memory_and_plain_steps_are_delta_net():
    settings = config(VARIANTS["delta rule"])
    delta = build(MIXERS.get("delta_net").from_settings({}, {**SHARED, "num_heads": 2, "head_dim": 4}))
    atlas = settings.build(D).double()
    atlas.load_state_dict(delta.state_dict())
    x = inputs(2)
    want, scale = delta(x), settings.head_dim**-0.5
    # The delta rule scales what it reads by K^-1/2, which the eps of the norm sees.
    atlas.o_norm.eps = delta.o_norm.eps / scale**2
    got = atlas(x)
    torch.testing.assert_close(got.y, want.y, rtol=0, atol=1e-12)
    torch.testing.assert_close(got.state["memory_0"], want.state["memory"], rtol=0, atol=1e-12)


def test_features_make_the_start_of_the_exponential_series():
    mixer = build(config({"feature_degree": 2}))
    q, k = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    dot = (q * k).sum(-1)
    torch.testing.assert_close((mixer._features(q) * mixer._features(k)).sum(-1), dot + dot.square() / 2)


def test_orthogonalised_matrices_have_singular_values_near_one():
    x = torch.randn(3, 4, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for one in (x, x.mT, x * 1e-3):
        values = torch.linalg.svdvals(orthogonalise(one))
        assert values.min() > 0.6
        assert values.max() < 1.3
    assert orthogonalise(torch.zeros(4, 5)).abs().max() == 0


def test_how_far_chunks_are_from_gradients_at_every_token():
    """The declared difference: chunks of 8 against chunks of 1, relative to the output."""
    one, eight = (build(config({"chunk_size": size})) for size in (1, 8))
    eight.load_state_dict(one.state_dict())
    x = inputs(2)
    want = one(x).y
    assert 1e-6 < (eight(x).y - want).norm() / want.norm() < 0.5


def test_names_of_choices_are_checked():
    with pytest.raises(ConfigError, match="optimizer is 'adam'; expected muon or sgd"):
        config({"optimizer": "adam"})
    with pytest.raises(ConfigError, match="memory is 'deep'"):
        config({"memory": "deep"})
    with pytest.raises(ConfigError, match="feature_degree is 3"):
        config({"feature_degree": 3})


def test_operations_do_not_grow_with_the_text():
    mixer = build(config({}))
    assert mixer.flops_per_token(T) == mixer.flops_per_token(100 * T)
