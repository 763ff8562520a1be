"""SeqBoat: against plain loops over the active tokens; all active, none active; its rate."""

import math
from itertools import pairwise

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
from longlode.mixers import MIXERS, SequenceContext

KIND = MIXERS.get("seqboat")


def make(window=3, lean=0.0):
    """A mixer whose tokens are the more active the larger `lean` is."""
    mixer = build(KIND.from_settings({"window": window, "state_size": 4}, {**SHARED, "num_heads": 2}))
    with torch.no_grad():
        mixer.choice_proj.bias.copy_(torch.tensor([0.0, lean]))
        assert math.isclose(mixer.log_temperature.exp().item(), math.sqrt(D), rel_tol=1e-6)
        for parameter in (mixer.qk_scale, mixer.qk_bias, mixer.log_temperature):
            parameter.normal_(0, 0.7)
    return mixer


def silu(u):
    return u / (1 + torch.exp(-u))


def by_hand(mixer, x):
    """y of one document x `[T, D]`, and which tokens were active."""
    w = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    h, K = mixer.ssm(x[None]).y[0].detach(), mixer.config.head_dim
    y, keys, values, active = h.clone(), [], [], []

    def turned(u, position):
        angles = torch.tensor(
            [position * 10000.0 ** (-i / (K // 2)) for i in range(K // 2)], dtype=torch.float64
        )
        z = torch.complex(u[: K // 2], u[K // 2 :]) * torch.exp(1j * angles)
        return torch.cat((z.real, z.imag))

    for t in range(len(x)):
        no, yes = (h[t] @ w["choice_proj.weight"].T + w["choice_proj.bias"]).tolist()
        p = 1 / (1 + math.exp((no - yes) / math.exp(w["log_temperature"])))
        active.append(p > 0.5)
        if not active[-1]:
            continue
        z = silu(w["z_proj.weight"] @ h[t])
        q, k = (w["qk_scale"][s] * z + w["qk_bias"][s] for s in (slice(0, K), slice(K, 2 * K)))
        q, k = turned(q, t), turned(k, t)
        keys.append(k)
        values.append(silu(w["v_proj.weight"] @ h[t]))
        near = slice(max(0, len(keys) - mixer.config.window), None)
        weights = torch.stack([q @ key / math.sqrt(K) for key in keys[near]]).softmax(0)
        o = sum(a * v for a, v in zip(weights, values[near], strict=True))
        y[t] += p * (w["o_proj.weight"] @ (silu(w["u_proj.weight"] @ h[t]) * o))
    return y, active


@pytest.mark.parametrize("window", [1, 3, 40])
def test_against_plain_loops(window):
    mixer, x = make(window), inputs(2)
    for n in range(2):
        want, active = by_hand(mixer, x[n])
        assert 0 < sum(active) < T
        output = mixer(x[n : n + 1])
        torch.testing.assert_close(output.y[0], want, rtol=0, atol=1e-11)
        assert output.metrics["activation_rate"].item() == pytest.approx(sum(active) / T)
    torch.testing.assert_close(mixer(x).y[1], want, rtol=0, atol=1e-11)


def test_none_active_is_the_state_space_model_alone():
    mixer, x = make(lean=-1e4), inputs(2)
    output = mixer(x)
    torch.testing.assert_close(output.y, mixer.ssm(x).y, rtol=0, atol=0)
    assert output.metrics["activation_rate"] == 0


def test_all_active_is_a_plain_window():
    mixer, x = make(lean=1e4), inputs(1)
    want, active = by_hand(mixer, x[0])
    assert all(active)
    torch.testing.assert_close(mixer(x).y[0], want, rtol=0, atol=1e-11)


def test_the_window_reaches_over_tokens_that_are_not_active():
    """A token before many inactive ones still changes what an active one reads."""
    mixer = make(window=2)
    x = inputs(1, 60)
    _, active = by_hand(mixer, x[0])
    places = [t for t, one in enumerate(active) if one]
    gap, t = max((b - a, b) for a, b in pairwise(places))
    assert gap > 2
    state = mixer(x[:, :t]).state
    blank = {**state, "active_v": torch.zeros_like(state["active_v"])}
    assert (mixer(x[:, t:], state).y[:, 0] - mixer(x[:, t:], blank).y[:, 0]).abs().max() > 1e-3


BLOCK_LAWS = [pieces, steps, packing_from_states, left_padding, right_padding, gradients_through_the_state]


@pytest.mark.parametrize("law", BLOCK_LAWS)
@pytest.mark.parametrize(("window", "lean"), [(1, 0.0), (3, 0.0), (3, -1e4), (3, 1e4)])
def test_the_laws_for_other_windows_and_rates(window, lean, law):
    law(make(window, lean))


def test_padding_does_not_count_in_the_rate():
    mixer, x = make(), inputs(2)
    mask = torch.arange(T) < torch.tensor([[T], [6]])
    rate = mixer(x, None, SequenceContext.of(x, mask=mask)).metrics["activation_rate"].item()
    active = by_hand(mixer, x[0])[1] + by_hand(mixer, x[1, :6])[1]
    assert rate == pytest.approx(sum(active) / len(active))


def test_the_choice_learns_from_what_comes_back():
    mixer, x = make(), inputs(1)
    gradient = torch.autograd.grad(mixer(x).y.square().sum(), mixer.choice_proj.weight)[0]
    assert gradient.abs().max() > 1e-3
    assert mixer.flops_per_token(10) > 2 * D * (2 * D + 2 + 6 + 3 * 12)


def test_an_odd_head_is_refused():
    with pytest.raises(ConfigError, match="head_dim is 5"):
        KIND.from_settings({"head_dim": 5}, SHARED)
