"""The mixer of LAWCAT: against plain loops; its outputs are means of values."""

import math

import torch
from mixer_laws import SHARED, D, T, build, inputs

from longlode.mixers import MIXERS

CONFIG = MIXERS.get("conv_gla").from_settings({"conv_size": 3}, SHARED)


def by_hand(mixer, x):
    """y of one document x `[T, D]`: every pair of tokens, its weight a product of decays."""
    w = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    K = mixer.config.head_dim

    def features(name):
        u, taps = x @ w[f"{name}_proj.weight"].T, w[f"{name}_conv1d.weight"][:, 0]
        rows = []
        for t in range(len(x)):
            total = sum(taps[:, 2 - back] * u[t - back] for back in range(3) if t >= back)
            total = total / (1 + torch.exp(-total))
            rows.append(torch.where(total > 0, total + 1, total.exp()))
        return torch.stack(rows)

    q, k, v = features("q"), features("k"), x @ w["v_proj.weight"].T
    logits = x @ w["gk_proj.0.weight"].T @ w["gk_proj.1.weight"].T + w["gk_proj.1.bias"]
    decay = (1 / (1 + torch.exp(-logits))) ** (1 / 16)
    rows = torch.zeros_like(v)
    for head in range(mixer.config.num_heads):
        part = slice(head * K, (head + 1) * K)
        for t in range(len(x)):
            scores = [
                float((q[t, part] * k[j, part] * math.prod(decay[j + 1 : t + 1, part], start=1.0)).sum())
                for j in range(t + 1)
            ]
            rows[t, part] = sum(s * v[j, part] for j, s in enumerate(scores)) / sum(scores)
    return rows @ w["o_proj.weight"].T


def test_against_plain_loops():
    mixer, x = build(CONFIG), inputs(2)
    for n in range(2):
        torch.testing.assert_close(mixer(x).y[n], by_hand(mixer, x[n]), rtol=0, atol=1e-11)


def test_equal_values_come_back_whatever_the_length():
    mixer = build(CONFIG)
    x = inputs(1, 200)
    with torch.no_grad():
        mixer.v_proj.weight.zero_()
        mixer.o_proj.weight.copy_(torch.eye(24, dtype=torch.float64)[:D])
        mixer.v_proj.register_forward_hook(lambda module, args, output: output + 3.0)
    torch.testing.assert_close(mixer(x).y, torch.full_like(x, 3.0), rtol=0, atol=1e-10)


def test_operations_per_token():
    """Four projections as those of attention, two thin ones, two convolutions, and K x (V + 1) matrices."""
    inner = 24
    dense = 2 * (4 * D * inner + 16 * (D + inner) + 2 * 3 * inner)
    assert build(CONFIG).flops_per_token(T) == dense + 4 * 4 * 6 * 7
