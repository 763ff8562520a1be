"""LightNet: against the definition in plain loops, where its sums reach, and as the gated form."""

import math

import torch
from mixer_laws import SHARED, D, T, build, inputs

from longlode.mixers import MIXERS
from longlode.mixers.lightnet import LogSumMap

CONFIG = MIXERS.get("lightnet").from_settings({"gate_rank": 5}, SHARED)


def by_hand(mixer, x):
    """y of one document x `[T, D]`: at every token a softmax over the past for every key channel."""
    w = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    K = mixer.config.head_dim
    q, k, v = (x @ w[f"{name}_proj.weight"].T for name in "qkv")
    q = q / (1 + torch.exp(-q))
    gate = x @ w["g_proj.0.weight"].T @ w["g_proj.1.weight"].T
    rows = torch.zeros_like(v)
    for head in range(mixer.config.num_heads):
        part = slice(head * K, (head + 1) * K)
        for t in range(len(x)):
            o = torch.zeros(K, dtype=torch.float64)
            for channel in range(head * K, (head + 1) * K):
                weights = [math.exp(float(k[i, channel])) for i in range(t + 1)]
                mean = sum(weight * v[i, part] for i, weight in enumerate(weights)) / sum(weights)
                o = o + float(q[t, channel]) / math.sqrt(K) * mean
            o = o / math.sqrt(float(o @ o) / K + mixer.config.norm_eps) * w["o_norm.weight"]
            rows[t, part] = o * gate[t, part] / (1 + torch.exp(-gate[t, part]))
    return rows @ w["o_proj.weight"].T


def test_against_plain_loops():
    mixer, x = build(CONFIG), inputs(2)
    for n in range(2):
        torch.testing.assert_close(mixer(x).y[n], by_hand(mixer, x[n]), rtol=0, atol=1e-11)


def test_logarithms_of_any_size_neither_overflow_nor_vanish():
    """Keys of e^(+-1000) and a state in float32: weights are those of the softmax."""
    mixer = build(CONFIG).float()
    x = inputs(1).float()
    with torch.no_grad():
        mixer.k_proj.weight.mul_(300)
    got = mixer(x).y
    state, parts = None, []
    for piece in x.split(5, dim=1):
        output = mixer(piece, state)
        state = output.state
        parts.append(output.y)
    assert mixer.k_proj(x).abs().max() > 500
    assert got.isfinite().all()
    torch.testing.assert_close(torch.cat(parts, 1), got, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(got, mixer.double()(x.double()).y.float(), rtol=1e-2, atol=1e-2)


def test_maps_of_spans_compose_in_any_order_of_brackets():
    mixer, x = build(CONFIG), inputs(1)
    one, two, three = (mixer.segment_map(part) for part in x.split([4, 8, T - 12], dim=1))
    whole = mixer(x).state["memory"]
    for composed in (one.then(two).then(three), one.then(two.then(three))):
        assert isinstance(composed, LogSumMap)
        torch.testing.assert_close(composed(None), whole, rtol=0, atol=1e-12)
    before = mixer(inputs(1, 6, seed=3)).state
    torch.testing.assert_close(
        one.then(two).then(three)(before["memory"]),
        mixer(x, before).state["memory"],
        rtol=0,
        atol=1e-12,
    )


def test_operations_per_token():
    """Per head, a write and a read of a K x V matrix."""
    mixer = build(CONFIG)
    dense = 2 * (5 * D * 24 + 5 * (D + 24) - D * 24)
    assert mixer.flops_per_token(T) == dense + 4 * 4 * 36
