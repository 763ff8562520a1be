"""Each mixer against its equations, written out here a second time with loops."""

import math
from dataclasses import replace

import pytest
import torch

from longlode.mixers import MIXERS, MixerSettings

SETTINGS = MixerSettings(hidden_size=10, num_heads=2, num_kv_heads=1, head_dim=4, window=3)
T = 9


def build(letter, settings):
    torch.manual_seed(3)
    mixer = MIXERS[letter](settings).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_(0, 0.6)
    return mixer, torch.randn(T, settings.hidden_size, dtype=torch.float64)


def silu(x):
    return x / (1 + torch.exp(-x))


def delta_layer(mixer, x, settings, gated):
    weights = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    K = settings.head_dim
    streams = {}
    for name in "qkv":
        projected = x @ weights[f"{name}_proj.weight"].T
        taps = weights[f"{name}_conv1d.weight"][:, 0]
        rows = []
        for t in range(T):
            total = torch.zeros_like(projected[0])
            for back in range(settings.conv_size):
                if t - back >= 0:
                    total += taps[:, settings.conv_size - 1 - back] * projected[t - back]
            rows.append(silu(total))
        streams[name] = torch.stack(rows)
    output = torch.zeros_like(streams["v"])
    for head in range(settings.num_heads):
        S, part = torch.zeros(K, K, dtype=torch.float64), slice(head * K, (head + 1) * K)
        for t in range(T):
            q, k, v = (streams[name][t, part] for name in "qkv")
            q, k = (u / math.sqrt(float(u @ u) + 1e-6) for u in (q, k))
            beta = 1 / (1 + math.exp(-float(x[t] @ weights["b_proj.weight"][head])))
            beta *= 2 if settings.allow_neg_eigval else 1
            if gated:
                a = float(x[t] @ weights["a_proj.weight"][head] + weights["dt_bias"][head])
                S = S * math.exp(-math.exp(float(weights["A_log"][head])) * math.log1p(math.exp(a)))
            S = S + beta * torch.outer(k, v - S.T @ k)
            o = S.T @ q / math.sqrt(K)
            o = o / math.sqrt(float(o @ o) / K + settings.norm_eps) * weights["o_norm.weight"]
            if settings.use_output_gate:
                o = o * silu(x[t] @ weights["g_proj.weight"].T)[part]
            output[t, part] = o
    return output @ weights["o_proj.weight"].T


@pytest.mark.parametrize("letter", ["D", "G"])
@pytest.mark.parametrize("extras", [False, True])
def test_delta_rule_layers(letter, extras):
    settings = replace(SETTINGS, allow_neg_eigval=extras, use_output_gate=extras)
    mixer, x = build(letter, settings)
    y, _ = mixer(x[None])
    torch.testing.assert_close(y[0], delta_layer(mixer, x, settings, letter == "G"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("letter", ["S", "A"])
def test_attention_layers(letter):
    mixer, x = build(letter, SETTINGS)
    heads, K = SETTINGS.num_heads, SETTINGS.head_dim

    def turned(u, t):
        # A pair (u_i, u_{i + K/2}) is one complex number, turned by an angle that grows with the position.
        pairs = torch.complex(u[: K // 2], u[K // 2 :])
        speeds = torch.tensor(
            [SETTINGS.rope_theta ** (-2 * i / K) for i in range(K // 2)], dtype=torch.float64
        )
        pairs = pairs * torch.polar(torch.ones_like(speeds), t * speeds)
        return torch.cat((pairs.real, pairs.imag))

    q, k, v = ((x @ getattr(mixer, f"{name}_proj").weight.T).detach() for name in "qkv")
    output = torch.zeros(T, heads * K, dtype=torch.float64)
    for head in range(heads):
        part = slice(head * K, (head + 1) * K)
        for t in range(T):
            first = max(0, t - SETTINGS.window + 1) if letter == "S" else 0
            scores = [
                float(turned(q[t, part], t) @ turned(k[j], j)) / math.sqrt(K) for j in range(first, t + 1)
            ]
            shares = torch.tensor(scores, dtype=torch.float64).softmax(0)
            output[t, part] = shares @ v[first : t + 1]
    y, _ = mixer(x[None])
    torch.testing.assert_close(y[0], output @ mixer.o_proj.weight.T, rtol=0, atol=1e-12)
