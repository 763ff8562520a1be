"""Landmark attention: against plain loops, with all and with few blocks retrieved, and rows at different places."""

import math

import pytest
import torch
from mixer_laws import (
    D,
    T,
    build,
    causality,
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
from longlode.mixers import MIXERS, landmark

KIND = MIXERS.get("landmark")


def make(**settings):
    return build(KIND.from_settings({"block_size": 4, **settings}, {"num_heads": 2, "head_dim": 4}))


def turned(u, position):
    half = len(u) // 2
    angles = torch.tensor([position * 10000.0 ** (-i / half) for i in range(half)], dtype=torch.float64)
    z = torch.complex(u[:half], u[half:]) * torch.exp(1j * angles)
    return torch.cat((z.real, z.imag))


def by_hand(mixer, x):
    """y of one document x `[T, D]`: the weight of every token, from the two softmaxes."""
    c = mixer.config
    q, k, v = ((x @ getattr(mixer, f"{name}_proj").weight.T).detach() for name in "qkv")
    K, g, rows = c.head_dim, c.block_size, torch.zeros_like(v)
    for h in range(c.num_heads):
        part = slice(h * K, (h + 1) * K)
        for t in range(len(x)):
            own = t // g * g
            score = [
                float(turned(q[t, part], t) @ turned(k[j, part], j)) / math.sqrt(K) for j in range(t + 1)
            ]
            marks = sorted(range(g - 1, own, g), key=lambda j: -score[j])[: c.num_retrieved]
            group = [*range(own, t + 1), *marks]
            total = sum(math.exp(score[j]) for j in group)
            for j in range(own, t + 1):
                rows[t, part] += math.exp(score[j]) / total * v[j, part]
            for mark in marks:
                block = range(mark - g + 1, mark)
                inside = sum(math.exp(score[j]) for j in block)
                for j in block:
                    share = math.exp(score[mark]) / total * math.exp(score[j]) / inside
                    rows[t, part] += share * v[j, part]
    return rows @ mixer.o_proj.weight.T


@pytest.mark.parametrize("num_retrieved", [None, 1, 2])
@pytest.mark.parametrize("block_size", [2, 4, 30])
def test_against_plain_loops(block_size, num_retrieved):
    mixer, x = make(block_size=block_size, num_retrieved=num_retrieved), inputs(2)
    for n in range(2):
        torch.testing.assert_close(mixer(x).y[n], by_hand(mixer, x[n]), rtol=0, atol=1e-11)


def test_retrieving_all_blocks_is_the_training_form():
    """Also through the path that copies blocks, which a smaller count takes."""
    train, x = make(), inputs(2, 600)
    want = train(x).y
    every = make(num_retrieved=150)
    every.load_state_dict(train.state_dict())
    torch.testing.assert_close(every(x).y, want, rtol=0, atol=1e-12)
    q, k, v = (torch.randn(2, 2, n, 4, dtype=torch.float64) for n in (5, 12, 12))
    k, v = k.unflatten(2, (4, 3)), v.unflatten(2, (4, 3))
    gates = torch.rand(2, 2, 5, 4, dtype=torch.float64)
    chosen = torch.rand(2, 2, 5, 4).argsort(-1)
    torch.testing.assert_close(
        landmark._from_blocks(q, k, v, gates.gather(-1, chosen), chosen),
        landmark._from_blocks(q, k, v, gates, None),
        rtol=0,
        atol=1e-12,
    )


BLOCK_LAWS = [
    causality, pieces, steps, packing_from_states, left_padding, right_padding, gradients_through_the_state, state_size
]  # fmt: skip


@pytest.mark.parametrize("law", BLOCK_LAWS)
@pytest.mark.parametrize("num_retrieved", [None, 1])
def test_the_laws_in_small_blocks(num_retrieved, law):
    law(make(num_retrieved=num_retrieved))


@pytest.mark.parametrize("num_retrieved", [None, 2])
def test_blocks_of_queries_give_what_steps_give(num_retrieved):
    mixer, x = make(block_size=16, num_retrieved=num_retrieved), inputs(1, 530)
    whole = mixer(x).y
    state = mixer(x[:, :520]).state
    for t in range(520, 530):
        y_t, state = mixer.step(x[:, t], state)
        torch.testing.assert_close(y_t, whole[:, t], rtol=0, atol=1e-12)


def test_operations_per_token():
    """Of 5 tokens in blocks of 2: 0 to 2 blocks before, of one ordinary token each, and 1 or 2 own tokens."""
    dense = 2 * 4 * D * 8
    assert make(block_size=2).flops_per_token(5) == pytest.approx(
        dense + 8 * (2 * 4 / 5 + 4 * 4 / 5 + 4 * 7 / 5)
    )
    few = make(block_size=2, num_retrieved=1)
    assert few.flops_per_token(5) == pytest.approx(dense + 8 * (2 * 4 / 5 + 4 * 3 / 5 + 4 * 7 / 5))
    assert few.state_bytes(T) == (2 * T + T // 2) * 8 * 4 + 8


def test_an_odd_head_is_refused():
    with pytest.raises(ConfigError, match="head_dim is 3"):
        make(head_dim=3)
