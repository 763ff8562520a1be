"""LongVQ: against plain loops over all pairs of tokens, as softmax attention, and its codebook."""

import math

import pytest
import torch
from mixer_laws import SHARED, T, build, inputs

from longlode.mixers import MIXERS, SequenceContext

KIND = MIXERS.get("longvq")
CONFIG = KIND.from_settings({"num_codes": 5, "state_size": 4}, {**SHARED, "num_heads": 2})


def streams(mixer, x):
    """h `[T, D]`, and q, k, v of one document x `[T, D]`, q and k of length K^(1/4) per head."""
    w = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    K = mixer.config.head_dim
    h = mixer.ssm(x[None]).y[0].detach()

    def heads(u):
        u = u.view(len(x), mixer.config.num_heads, K)
        lengths = torch.tensor(
            [[math.sqrt(float(one @ one) + 1e-6) for one in row] for row in u], dtype=torch.float64
        )
        return u / lengths[..., None] * K**0.25

    q, k = heads(h @ w["q_proj.weight"].T), heads(h @ w["k_proj.weight"].T)
    return h, q, k, (x @ w["v_proj.weight"].T).view_as(q)


def by_hand(mixer, x, keys):
    """y of one document, of keys `[T, H, K]`: softmax attention, then the gate."""
    w = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    h, q, _, v = streams(mixer, x)
    rows = torch.zeros_like(v)
    for head in range(mixer.config.num_heads):
        for t in range(len(x)):
            weights = [math.exp(float(q[t, head] @ keys[j, head])) for j in range(t + 1)]
            rows[t, head] = sum(one * v[j, head] for j, one in enumerate(weights)) / sum(weights)
    f = 1 / (1 + torch.exp(-(h @ w["gate_proj.weight"].T + w["gate_proj.bias"])))
    return f * (rows.flatten(1) @ w["o_proj.weight"].T) + (1 - f) * h


def nearest(mixer, keys):
    codes = mixer.codes.detach()
    out = torch.zeros_like(keys)
    for t in range(len(keys)):
        for head in range(keys.shape[1]):
            distances = [float((keys[t, head] - code) @ (keys[t, head] - code)) for code in codes[head]]
            out[t, head] = codes[head, distances.index(min(distances))]
    return out


def test_against_plain_loops():
    mixer, x = build(CONFIG), inputs(2)
    for n in range(2):
        keys = nearest(mixer, streams(mixer, x[n])[2])
        torch.testing.assert_close(mixer(x).y[n], by_hand(mixer, x[n], keys), rtol=0, atol=1e-11)


def test_a_code_for_every_key_is_softmax_attention():
    config = KIND.from_settings({"num_codes": T, "state_size": 4}, {**SHARED, "num_heads": 2})
    mixer, x = build(config), inputs(1)
    keys = streams(mixer, x[0])[2]
    with torch.no_grad():
        mixer.codes.copy_(keys.transpose(0, 1))
    output = mixer(x)
    torch.testing.assert_close(output.y[0], by_hand(mixer, x[0], keys), rtol=0, atol=1e-11)
    assert output.metrics["codes_used"] == 1
    assert output.aux_losses["codebook"] < 1e-12


def test_queries_far_from_every_code_seen_still_read():
    """In float32, with codes so long that exp of an unseen one would drown the others."""
    mixer, x = build(CONFIG).float(), inputs(1).float()
    with torch.no_grad():
        mixer.codes[:, 0] *= 1e4
        mixer.codes[:, 1] *= -1e4
    y = mixer(x).y
    assert y.isfinite().all()
    torch.testing.assert_close(y, mixer.double()(x.double()).y.float(), rtol=1e-3, atol=1e-4)


def test_the_codebook_loss_counts_real_tokens():
    mixer, x = build(CONFIG), inputs(2)
    mask = torch.arange(T) < torch.tensor([[T], [6]])
    got = mixer(x, None, SequenceContext.of(x, mask=mask)).aux_losses["codebook"].item()
    keys = torch.cat([streams(mixer, x[0])[2], streams(mixer, x[1, :6])[2]])
    error = (keys - nearest(mixer, keys)).square().mean().item()
    assert got == pytest.approx(0.1 * 1.25 * error, rel=1e-6)


def test_training_moves_codes_towards_keys():
    mixer, x = build(CONFIG), inputs(4, 30)
    optimizer = torch.optim.SGD(mixer.parameters(), lr=2.0)
    losses = []
    for _ in range(30):
        loss = mixer(x).aux_losses["codebook"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    gradient = torch.autograd.grad(mixer(x).y.square().sum(), mixer.k_proj.weight)[0]
    assert gradient.abs().max() > 1e-6
