"""Each mixer against its equations, written out here a second time with loops."""

import math
from types import SimpleNamespace

import pytest
import torch

from longlode.mixers import LETTERS, MIXERS

SETTINGS = SimpleNamespace(
    num_heads=2, num_kv_heads=1, head_dim=4, window=3, conv_size=4, norm_eps=1e-6, rope_theta=10000.0
)
D, T = 10, 9


def build(letter, **settings):
    torch.manual_seed(3)
    mixer = MIXERS.get(LETTERS[letter]).from_settings(settings, vars(SETTINGS)).build(D).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_(0, 0.6)
    return mixer, torch.randn(T, D, dtype=torch.float64)


def silu(x):
    return x / (1 + torch.exp(-x))


def delta_layer(mixer, x, settings, gated):
    weights = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    K, V = settings.head_dim, settings.value_dim
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
    for head in range(settings.value_heads):
        key_head = head * settings.num_heads // settings.value_heads
        S, part = torch.zeros(K, V, dtype=torch.float64), slice(key_head * K, (key_head + 1) * K)
        values = slice(head * V, (head + 1) * V)
        for t in range(T):
            q, k, v = streams["q"][t, part], streams["k"][t, part], streams["v"][t, values]
            q, k = (u / math.sqrt(float(u @ u) + 1e-6) for u in (q, k))
            beta = 1 / (1 + math.exp(-float(x[t] @ weights["b_proj.weight"][head])))
            beta *= 2 if settings.allow_neg_eigval else 1
            if gated:
                a = float(x[t] @ weights["a_proj.weight"][head] + weights["dt_bias"][head])
                S = S * math.exp(-math.exp(float(weights["A_log"][head])) * math.log1p(math.exp(a)))
            S = S + beta * torch.outer(k, v - S.T @ k)
            o = S.T @ q / math.sqrt(K)
            o = o / math.sqrt(float(o @ o) / V + settings.norm_eps) * weights["o_norm.weight"]
            if settings.use_output_gate:
                o = o * silu(x[t] @ weights["g_proj.weight"].T)[values]
            output[t, values] = o
    return output @ weights["o_proj.weight"].T


@pytest.mark.parametrize("letter", ["D", "G"])
@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("group", [1, 3])
def test_delta_rule_layers(letter, extras, group):
    mixer, x = build(
        letter,
        allow_neg_eigval=extras,
        use_output_gate=extras,
        expand_v=1.5 if extras else 1.0,
        num_v_heads=group * SETTINGS.num_heads,
    )
    want = delta_layer(mixer, x, mixer.config, letter == "G")
    torch.testing.assert_close(mixer(x[None]).y[0], want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rope", [True, False])
@pytest.mark.parametrize("letter", ["S", "A"])
def test_attention_layers(letter, rope):
    mixer, x = build(letter, rope=rope)
    heads, K = SETTINGS.num_heads, SETTINGS.head_dim

    def turned(u, t):
        if not rope:
            return u
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
    torch.testing.assert_close(mixer(x[None]).y[0], output @ mixer.o_proj.weight.T, rtol=0, atol=1e-12)


def conv(x, taps):
    """SiLU of a causal depthwise convolution of x `[T, D]`, taps `[D, 1, W]`, newest last."""
    rows = []
    for t in range(len(x)):
        total = torch.zeros_like(x[0])
        for back in range(min(t + 1, taps.shape[2])):
            total += taps[:, 0, taps.shape[2] - 1 - back] * x[t - back]
        rows.append(silu(total))
    return torch.stack(rows)


def rms(u, weight, eps):
    return u / math.sqrt(float(u @ u) / len(u) + eps) * weight


def test_linear_attention_divides_by_its_normaliser_or_not():
    """With the normaliser of arXiv 2006.16236 in front of the RMSNorm nothing changes but the size of eps."""
    mixer, x = build("L")
    weights = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    K = SETTINGS.head_dim
    q, k, v = (x @ weights[f"{name}_proj.weight"].T for name in "qkv")
    q, k = (torch.where(u > 0, u + 1, u.exp()) for u in (q, k))
    for normalised in (False, True):
        output = torch.zeros_like(v)
        for head in range(SETTINGS.num_heads):
            part = slice(head * K, (head + 1) * K)
            for t in range(T):
                shares = torch.stack([q[t, part] @ k[s, part] for s in range(t + 1)]) / math.sqrt(K)
                o = shares @ v[: t + 1, part]
                o, eps = (o / shares.sum(), 0.0) if normalised else (o, SETTINGS.norm_eps)
                output[t, part] = rms(o, weights["o_norm.weight"], eps)
        want = output @ weights["o_proj.weight"].T
        atol = 1e-4 if normalised else 1e-12
        torch.testing.assert_close(mixer(x[None])[0][0], want, rtol=0, atol=atol)


def test_gated_linear_attention():
    mixer, x = build("C")
    weights = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    V, K = SETTINGS.head_dim, SETTINGS.head_dim // 2
    q, k, v = (x @ weights[f"{name}_proj.weight"].T for name in "qkv")
    logits = x @ weights["gk_proj.0.weight"].T @ weights["gk_proj.1.weight"].T + weights["gk_proj.1.bias"]
    fades = (1 / (1 + torch.exp(-logits))) ** (1 / 16)
    gate = silu(x @ weights["g_proj.weight"].T)
    output = torch.zeros_like(v)
    for head in range(SETTINGS.num_heads):
        S = torch.zeros(K, V, dtype=torch.float64)
        keys, values = slice(head * K, (head + 1) * K), slice(head * V, (head + 1) * V)
        for t in range(T):
            S = torch.diag(fades[t, keys]) @ S + torch.outer(k[t, keys], v[t, values])
            o = rms(S.T @ q[t, keys] / math.sqrt(K), weights["o_norm.weight"], SETTINGS.norm_eps)
            output[t, values] = o * gate[t, values]
    torch.testing.assert_close(mixer(x[None]).y[0], output @ weights["o_proj.weight"].T, rtol=0, atol=1e-12)


def test_mamba2():
    mixer, x = build("M")
    weights = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    K = SETTINGS.head_dim
    inner = conv(x @ weights["x_proj.weight"].T, weights["x_conv1d.weight"])
    bc = conv(x @ weights["bc_proj.weight"].T, weights["bc_conv1d.weight"])
    B, C = bc[:, :K], bc[:, K:]
    output = torch.zeros_like(inner)
    for head in range(SETTINGS.num_heads):
        S, part = torch.zeros(K, K, dtype=torch.float64), slice(head * K, (head + 1) * K)
        for t in range(T):
            raw = float(x[t] @ weights["dt_proj.weight"][head] + weights["dt_bias"][head])
            dt = math.log1p(math.exp(raw))
            S = math.exp(-math.exp(float(weights["A_log"][head])) * dt) * S
            S = S + dt * torch.outer(B[t], inner[t, part])
            output[t, part] = S.T @ C[t] + weights["skip"][head] * inner[t, part]
    gated = output * silu(x @ weights["z_proj.weight"].T)
    normed = torch.stack([rms(u, weights["o_norm.weight"], SETTINGS.norm_eps) for u in gated])
    torch.testing.assert_close(mixer(x[None]).y[0], normed @ weights["o_proj.weight"].T, rtol=0, atol=1e-12)


# Multiplications and additions per token beside the Linear modules, counted by hand for 2 heads of 4 over 9 tokens:
# convolutions of 4 taps; then per head a K x V memory is read, erased and written (6 K V), or written and read (4 K V);
# attention meets (t + 1) keys, at most 3 through the window, twice.
BESIDE_LINEAR = {
    "D": 2 * 4 * 3 * 8 + 6 * 2 * 16,
    "G": 2 * 4 * 3 * 8 + 6 * 2 * 16,
    "L": 4 * 2 * 16,
    "C": 4 * 2 * 2 * 4,
    "M": 2 * 4 * (8 + 2 * 4) + 4 * 2 * 16,
    "A": 4 * 8 * sum(range(1, 10)) / 9,
    "S": 4 * 8 * (1 + 2 + 3 * 7) / 9,
}


@pytest.mark.parametrize("letter", LETTERS)
def test_operations_per_token(letter):
    mixer, _ = build(letter)
    dense = sum(2 * m.weight.numel() for m in mixer.modules() if isinstance(m, torch.nn.Linear))
    assert mixer.flops_per_token(T) == pytest.approx(dense + BESIDE_LINEAR[letter])
