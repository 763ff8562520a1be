"""CCA and Combiner: against plain loops, as full attention, and with rows at different places of a region."""

import math

import pytest
import torch
from mixer_laws import (
    D,
    T,
    build,
    gradients_through_the_state,
    inputs,
    left_padding,
    packing_from_states,
    pieces,
    right_padding,
    state_size,
    steps,
)

from longlode.core.errors import ConfigError
from longlode.mixers import MIXERS

HEADS = {"num_heads": 2, "head_dim": 4}
VARIANTS = {
    "cca": ("cca", {"region_size": 3, "window": 4}),
    "cca, smallest window": ("cca", {"region_size": 4, "window": 1}),
    "fixed": ("combiner", {"region_size": 4}),
    "fixed, no power of two": ("combiner", {"region_size": 5}),
    "logsparse": ("combiner", {"region_size": 8, "pattern": "logsparse"}),
    "logsparse, small": ("combiner", {"region_size": 2, "pattern": "logsparse"}),
}


def make(name, settings):
    return build(MIXERS.get(name).from_settings(settings, HEADS))


def turned(u, position, theta=10000.0):
    half = len(u) // 2
    angles = torch.tensor([position * theta ** (-i / half) for i in range(half)], dtype=torch.float64)
    z = torch.complex(u[:half], u[half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((z.real, z.imag))


def regions_seen(config, t):
    """Spans of positions that make one key each, for a query at t; together they are 0 to t, each once."""
    g = config.region_size
    if config.name == "cca":
        far = max(0, (t + 1 - config.window) // g)
        return [(r * g, r * g + g) for r in range(far)] + [(j, j + 1) for j in range(far * g, t + 1)]
    spans, at = [(r * g, r * g + g) for r in range(t // g)], t // g * g
    if config.pattern == "fixed":
        return spans + [(j, j + 1) for j in range(at, t + 1)]
    for bit in reversed(range(10)):
        if (t % g) >> bit & 1:
            spans.append((at, at + 2**bit))
            at += 2**bit
    return [*spans, (t, t + 1)]


def by_hand(mixer, x):
    """y of one document x `[T, D]`."""
    q, k, v = ((x @ getattr(mixer, f"{name}_proj").weight.T).detach() for name in "qkv")
    K, rows = mixer.config.head_dim, torch.zeros_like(v)
    for h in range(mixer.config.num_heads):
        part = slice(h * K, (h + 1) * K)
        for t in range(len(x)):
            spans = regions_seen(mixer.config, t)
            assert sorted(j for a, b in spans for j in range(a, b)) == list(range(t + 1))
            scores, values = [], []
            for a, b in spans:
                # CCA rotates before it pools, Combiner after, to the position of the region's last token.
                pools_rotated = mixer.config.name == "cca"
                keys = k[a:b, part]
                asks = q[a:b, part].max(0).values
                if pools_rotated:
                    keys = torch.stack([turned(k[j, part], j) for j in range(a, b)])
                    asks = turned(q[b - 1, part], b - 1)
                inside = torch.tensor([float(asks @ key) / math.sqrt(K) for key in keys], dtype=torch.float64)
                shares = torch.stack([(one - inside.max()).exp() for one in inside])
                shares = shares / shares.sum()
                key = shares @ keys if pools_rotated else turned(keys.max(0).values, b - 1)
                scores.append(float(turned(q[t, part], t) @ key) / math.sqrt(K))
                values.append(shares @ v[a:b, part])
            weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
            rows[t, part] = sum(w * value for w, value in zip(weights, values, strict=True))
    return rows @ mixer.o_proj.weight.T


@pytest.mark.parametrize("variant", VARIANTS)
def test_against_plain_loops(variant):
    mixer, x = make(*VARIANTS[variant]), inputs(2)
    for n in range(2):
        torch.testing.assert_close(mixer(x).y[n], by_hand(mixer, x[n]), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cca", {"window": 1}),
        ("cca", {"window": 5}),
        ("combiner", {}),
        ("combiner", {"pattern": "logsparse"}),
    ],
)
def test_regions_of_one_token_are_full_attention(name, settings):
    mixer = make(name, {"region_size": 1, **settings})
    full = build(MIXERS.get("attention").from_settings({}, HEADS))
    full.load_state_dict(mixer.state_dict())
    x = inputs(2, 300)
    torch.testing.assert_close(mixer(x).y, full(x).y, rtol=0, atol=1e-12)


BLOCK_LAWS = [
    pieces, steps, packing_from_states, left_padding, right_padding, gradients_through_the_state, state_size
]  # fmt: skip


@pytest.mark.parametrize("law", BLOCK_LAWS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_laws_that_regions_could_break(variant, law):
    law(make(*VARIANTS[variant]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_blocks_of_queries_give_what_steps_give(variant):
    """A text longer than a block of queries, and its end token by token."""
    mixer, x = make(*VARIANTS[variant]), inputs(1, 530)
    whole = mixer(x).y
    state = mixer(x[:, :520]).state
    for t in range(520, 530):
        y_t, state = mixer.step(x[:, t], state)
        torch.testing.assert_close(y_t, whole[:, t], rtol=0, atol=1e-12)


def test_the_state_grows_by_one_key_and_value_per_region():
    mixer = make("cca", {"region_size": 16, "window": 32})
    per_region = 2 * 2 * 4 * 8
    assert mixer.state_bytes(1600, torch.float64) - mixer.state_bytes(800, torch.float64) == 50 * per_region


def test_operations_per_token():
    """Of 4 tokens with regions of 2: 1, 2, 2 and 3 keys, and one more for the pooling."""
    mixer = make("combiner", {"region_size": 2})
    assert mixer.flops_per_token(4) == 2 * 4 * D * 8 + 4 * 2 * 4 * ((1 + 2 + 2 + 3) / 4 + 1)
    assert make(*VARIANTS["cca"]).flops_per_token(T) > 2 * 4 * D * 8


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="region_size is 6; the logsparse pattern expects a power of two"):
        make("combiner", {"region_size": 6, "pattern": "logsparse"})
    with pytest.raises(ConfigError, match="pattern is 'axial'"):
        make("combiner", {"pattern": "axial"})
    with pytest.raises(ConfigError, match="even count"):
        make("cca", {"head_dim": 3})
