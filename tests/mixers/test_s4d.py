"""S4D: against its recurrence in plain loops, in chunks of any size, and as a layer of a model."""

import cmath
import math

import pytest
import torch
from mixer_laws import LAWS, D, T, build, inputs

from longlode.mixers import MIXERS, s4d
from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.train.optim import build_optimizer
from longlode.train.recipe import OptimSection

CONFIG = MIXERS.get("s4d").from_settings({"state_size": 6})


def by_hand(mixer, x):
    """y of one document x `[T, D]`: every channel and mode a complex number, a token a step."""
    weights = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    u = torch.zeros_like(x)
    for d in range(D):
        dt = math.exp(float(weights["log_step"][d]))
        state = [0j] * 3
        for t in range(len(x)):
            total = 0.0
            for n in range(3):
                A = complex(-math.exp(float(weights["log_rate"][d, n])), float(weights["frequency"][d, n]))
                a = cmath.exp(dt * A)
                state[n] = a * state[n] + (a - 1) / A * float(x[t, d])
                total += 2 * (complex(*weights["output_weights"][d, n].tolist()) * state[n]).real
            u[t, d] = total + float(weights["skip"][d]) * float(x[t, d])
    gelu = 0.5 * u * (1 + torch.erf(u / math.sqrt(2)))
    left, right = (gelu @ weights["o_proj.weight"].T + weights["o_proj.bias"]).chunk(2, dim=1)
    return left / (1 + torch.exp(-right))


@pytest.mark.parametrize("chunk", [1, 4, 8, 128])
def test_against_the_recurrence(monkeypatch, chunk):
    monkeypatch.setattr(s4d, "CHUNK", chunk)
    mixer, x = build(CONFIG), inputs(1)
    torch.testing.assert_close(mixer(x).y[0], by_hand(mixer, x[0]), rtol=0, atol=1e-11)


@pytest.mark.parametrize("law", LAWS)
def test_the_laws_in_small_chunks(monkeypatch, law):
    monkeypatch.setattr(s4d, "CHUNK", 4)
    law(build(CONFIG))


def test_operations_per_token():
    """Per channel: 3 modes read and written, a complex product of 8 each; three FFTs of 256 points over 128 tokens."""
    dense = 2 * D * 2 * D
    assert build(CONFIG).flops_per_token(T) == pytest.approx(dense + D * (16 * 3 + 3 * 5 * 256 * 8 / 128))


def test_it_remembers_and_trains_slowly_where_s4_does():
    torch.manual_seed(0)
    config = LonglodeConfig(
        vocab_size=30, hidden_size=16, num_heads=2, layers=["s4d", "s4d"], intermediate_size=32
    )
    model = LonglodeForCausalLM(config)
    assert config.state_bytes(10) == config.state_bytes(10_000) == 2 * 16 * 32 * 8
    optimizer = build_optimizer(model, OptimSection(lr=1e-2))
    slow = {id(p) for group in optimizer.param_groups if group["lr_scale"] == 0.1 for p in group["params"]}
    names = {name.split(".")[-1] for name, p in model.named_parameters() if id(p) in slow}
    assert names == {"log_rate", "frequency", "log_step"}
    x = torch.randint(0, 30, (8, 40))
    x[:, 20:] = x[:, :20]  # the second half can be distinguished from the first
    losses = []
    for _ in range(60):
        loss = model(x, labels=x).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
