"""HAX: hashed and scored heads against plain loops, beside Mamba-2."""

import math

import pytest
import torch
from mixer_laws import (
    SHARED,
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
from longlode.mixers import MIXERS, hax

KIND = MIXERS.get("hax")


def make(**settings):
    small = {"num_hashes": 2, "capacity": 3, "num_selected": 3, **settings}
    return build(KIND.from_settings(small, SHARED))


def by_hand(mixer, x):
    """y of one document x `[T, D]`."""
    w, c = {name: parameter.detach() for name, parameter in mixer.named_parameters()}, mixer.config
    K, half = c.head_dim, c.num_heads // 2
    q, k, v = ((x @ w[f"{name}_proj.weight"].T).view(len(x), -1, K) for name in "qkv")

    def bucket(u, h):
        along = [float(u @ w["directions"][h, :, r]) for r in range(c.num_hashes)]
        along += [-one for one in along]
        return along.index(max(along))

    def score(u):
        hidden = w["score.0.weight"] @ u + w["score.0.bias"]
        return float(w["score.2.weight"][0] @ (hidden / (1 + torch.exp(-hidden))))

    rows = torch.zeros_like(v)
    for h in range(c.num_heads):
        for t in range(len(x)):
            past = list(range(t + 1))
            if h < half:
                asked = bucket(q[t, h], h)
                past = [j for j in past if bucket(k[j, h], h) == asked][-c.capacity :]
                bonus = dict.fromkeys(past, 0.0)
            else:
                bonus = {j: score(k[j, h]) for j in past}
                past = sorted(past, key=lambda j: (bonus[j], j))[-c.num_selected :]
            if past:
                logits = [float(q[t, h] @ k[j, h]) / math.sqrt(K) + bonus[j] for j in past]
                weights = torch.tensor(logits, dtype=torch.float64).softmax(0)
                rows[t, h] = weights @ v[past, h]
    return rows.flatten(1) @ w["o_proj.weight"].T + mixer.ssm(x[None]).y[0]


@pytest.mark.parametrize("chunk", [1, 4, 64])
@pytest.mark.parametrize("settings", [{}, {"num_selected": 1, "capacity": 1}, {"num_selected": 30}])
def test_against_plain_loops(monkeypatch, chunk, settings):
    monkeypatch.setattr(hax, "_CHUNK", chunk)
    mixer, x = make(**settings), inputs(2)
    for n in range(2):
        torch.testing.assert_close(mixer(x).y[n], by_hand(mixer, x[n]), rtol=0, atol=1e-11)


def test_equal_scores_go_to_the_newer_key_in_any_chunks(monkeypatch):
    """Repeated tokens have the same score; what is kept must not depend on where a chunk ends."""
    mixer = make(num_selected=2)
    x = inputs(1, 3)[:, torch.tensor([0, 1, 0, 0, 2, 1, 0, 1, 1, 0, 0, 2])]
    want = by_hand(mixer, x[0])
    for chunk in (1, 3, 5, 64):
        monkeypatch.setattr(hax, "_CHUNK", chunk)
        output = mixer(x)
        torch.testing.assert_close(output.y[0], want, rtol=0, atol=1e-11)


BLOCK_LAWS = [pieces, steps, packing_from_states, left_padding, right_padding, gradients_through_the_state]


@pytest.mark.parametrize("law", BLOCK_LAWS)
@pytest.mark.parametrize("chunk", [2, 64])
def test_the_laws_in_small_chunks(monkeypatch, chunk, law):
    monkeypatch.setattr(hax, "_CHUNK", chunk)
    law(make())


def test_a_key_is_found_however_far_back():
    """A query reads a key like it hundreds of tokens back, where its bucket got no other since."""
    mixer, x = make(), inputs(1, 500)
    with torch.no_grad():
        mixer.q_proj.weight.copy_(mixer.k_proj.weight)
    bucket = mixer._bucket(mixer.k_proj(x).unflatten(-1, (4, 6))[:, :, :2])[0, :, 0]
    others = (bucket != bucket[0]).nonzero()[:, 0]
    assert len(others) > 100
    x = x[:, [0, *others.tolist(), 0]]
    state = mixer(x[:, :-1]).state
    o, _ = mixer._hashed(
        *(
            proj(x[:, -1:]).unflatten(-1, (4, 6))[:, :, :2]
            for proj in (mixer.q_proj, mixer.k_proj, mixer.v_proj)
        ),
        torch.ones(1, 1, dtype=torch.bool),
        state,
    )
    torch.testing.assert_close(o[0, 0, 0], mixer.v_proj(x[0, 0])[:6], rtol=0, atol=1e-12)


def test_the_score_learns_and_the_hash_does_not():
    mixer, x = make(), inputs(1)
    score, directions = torch.autograd.grad(
        mixer(x).y.square().sum(), [mixer.score[0].weight, mixer.directions], allow_unused=True
    )
    assert score.abs().max() > 1e-3
    assert directions is None
    assert mixer.flops_per_token(T) == mixer.flops_per_token(10 * T)


def test_an_odd_number_of_heads_is_refused():
    with pytest.raises(ConfigError, match="num_heads is 3"):
        make(num_heads=3)
