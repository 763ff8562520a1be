"""Routing attention: both modes against plain loops, what each can and cannot, and its k-means."""

import math

import pytest
import torch
from mixer_laws import (
    T,
    build,
    causality,
    gradients_through_the_state,
    inputs,
    left_padding,
    packing,
    packing_from_states,
    pieces,
    right_padding,
    steps,
)

from longlode.core.errors import ConfigError
from longlode.mixers import MIXERS, SequenceContext

KIND = MIXERS.get("routing")
HEADS = {"num_heads": 4, "head_dim": 4, "window": 3}


def make(**settings):
    return build(KIND.from_settings({"num_clusters": 3, "capacity": 4, **settings}, HEADS))


def streams(mixer, x):
    """Unit keys, rotated keys and values `[T, H / 2, K]`, and how close each key is to each centroid."""
    K = mixer.config.head_dim
    raw = (x @ mixer.k_proj.weight.T).detach().view(len(x), -1, K)
    k, turned = torch.zeros_like(raw), torch.zeros_like(raw)
    for t in range(len(x)):
        for h in range(raw.shape[1]):
            u = raw[t, h] - raw[t, h].mean()
            k[t, h] = u / math.sqrt(float(u @ u) / K + 1e-5) / math.sqrt(K)
            angles = torch.tensor(
                [t * 10000.0 ** (-i / (K // 2)) for i in range(K // 2)], dtype=torch.float64
            )
            z = torch.complex(k[t, h, : K // 2], k[t, h, K // 2 :]) * torch.exp(1j * angles)
            turned[t, h] = torch.cat((z.real, z.imag))
    v = (x @ mixer.v_proj.weight.T).detach().view_as(raw)
    return k, turned, v, torch.einsum("thk,hck->thc", k, mixer.centroids.detach())


def read(turned, v, t, members, h):
    """Attention of t over members, of which itself counts only if it is alone."""
    others = [j for j in members if j != t]
    if not others:
        return v[t, h]
    K = turned.shape[-1]
    scores = torch.stack([turned[t, h] @ turned[j, h] * math.sqrt(K) for j in others])
    return (scores.softmax(0)[:, None] * v[others, h]).sum(0)


def strict_by_hand(mixer, x):
    _, turned, v, close = streams(mixer, x)
    rows = torch.zeros_like(v)
    for h in range(v.shape[1]):
        cluster = close[:, h].argmax(-1).tolist()
        for t in range(len(x)):
            mates = [j for j in range(t + 1) if cluster[j] == cluster[t]][-mixer.config.capacity :]
            rows[t, h] = read(turned, v, t, mates, h)
    return rows.flatten(1) @ mixer.o_proj.weight.T + mixer.local(x[None]).y[0]


def published_by_hand(mixer, x):
    _, turned, v, close = streams(mixer, x)
    rows = torch.zeros_like(v)
    for h in range(v.shape[1]):
        said = [[] for _ in x]
        for c in range(close.shape[2]):
            nearest = sorted(range(len(x)), key=lambda j: -float(close[j, h, c]))[: mixer.config.capacity]
            for t in nearest:
                said[t].append(read(turned, v, t, [j for j in nearest if j <= t], h))
        for t, one in enumerate(said):
            if one:
                rows[t, h] = sum(one) / len(one)
    return rows.flatten(1) @ mixer.o_proj.weight.T + mixer.local(x[None]).y[0]


@pytest.mark.parametrize("capacity", [1, 2, 4, 30])
def test_the_strict_mode_against_plain_loops(capacity):
    mixer, x = make(capacity=capacity), inputs(2)
    for n in range(2):
        torch.testing.assert_close(mixer(x).y[n], strict_by_hand(mixer, x[n]), rtol=0, atol=1e-11)


@pytest.mark.parametrize("capacity", [1, 4, 30])
def test_the_published_mode_against_plain_loops(capacity):
    mixer, x = make(mode="published", capacity=capacity), inputs(2)
    for n in range(2):
        torch.testing.assert_close(mixer(x).y[n], published_by_hand(mixer, x[n]), rtol=0, atol=1e-11)


BLOCK_LAWS = [pieces, steps, packing_from_states, left_padding, right_padding, gradients_through_the_state]


@pytest.mark.parametrize("law", BLOCK_LAWS)
@pytest.mark.parametrize("capacity", [1, 4])
def test_the_laws_in_small_clusters(capacity, law):
    law(make(capacity=capacity))


def test_the_published_mode_says_that_it_is_not_causal_and_is_not():
    mixer = make(mode="published")
    assert (mixer.traits.causal, mixer.traits.steps) == ("no", False)
    with pytest.raises(AssertionError):
        causality(mixer)
    packing(mixer)
    x, lengths = inputs(3), [T, 6, 1]
    mask = torch.arange(T) >= T - torch.tensor(lengths)[:, None]
    y = mixer(x.masked_fill(~mask[..., None], float("nan")), None, SequenceContext.of(x, mask=mask)).y
    for n, length in enumerate(lengths):
        alone = mixer(x[n : n + 1, T - length :]).y
        torch.testing.assert_close(y[n : n + 1, T - length :], alone, rtol=0, atol=1e-12)


def test_the_published_mode_refuses_a_state():
    mixer, x = make(mode="published"), inputs(1)
    state = mixer(x[:, :5]).state
    with pytest.raises(ConfigError, match="cannot go on from a state"):
        mixer(x[:, 5:], state)
    with pytest.raises(ConfigError, match="in one piece"):
        mixer.step(x[:, 5], state)


def test_a_gradient_step_on_the_loss_moves_centroids_towards_their_keys():
    mixer, x = make(aux_weight=1.0), inputs(2)
    before = mixer.centroids.detach().clone()
    (gradient,) = torch.autograd.grad(mixer(x).aux_losses["k_means"], mixer.centroids)
    for h in range(2):
        moved = torch.zeros_like(before[h])
        for n in range(2):
            k, _, _, close = streams(mixer, x[n])
            for t in range(T):
                c = int(close[t, h].argmax())
                moved[c] += (k[t, h] - before[h, c]) / (2 * T * 2)
        torch.testing.assert_close(-gradient[h], moved, rtol=0, atol=1e-12)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="3 heads of 4 numbers; expected even counts"):
        make(num_heads=3)
    with pytest.raises(ConfigError, match="mode is 'soft'"):
        make(mode="soft")
